"""Flags that several commands share."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_chat.choices import PRECISIONS, PROMPT_FORMS, VIDEO_BACKENDS
from internvl_chat.command_line import DEFAULT_META
from internvl_chat.constants import MAX_NEW_TOKENS

if TYPE_CHECKING:
    from PIL import Image

# Flags that name a file or folder to write.
_WRITTEN = ("out", "meta_out", "html", "sheet", "boxes_out", "picture")


def counted(number: int, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def positive_int(text: str) -> int:
    """An argparse type: a whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: expected 1 or more")
    return value


def count(text: str) -> int:
    """An argparse type: a whole number from 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value}: expected 0 or more")
    return value


def file_to_write(text: str) -> Path:
    """An argparse type: a file that is written in the end; where it cannot be is told before any work is done."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: is a folder, expected a file to write")
    _check_writable(text, path.absolute().parent)
    return path


def folder_to_write(text: str) -> Path:
    """An argparse type: a folder that results are written to, new or not; told as early as `file_to_write`."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: is a file, expected a folder to write to")
    _check_writable(text, path.absolute())
    return path


def _check_writable(text: str, folder: Path) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise argparse.ArgumentTypeError(f"{text}: cannot be written, {there} is no folder that can be written to")


def png_path(text: str) -> Path:
    """An argparse type: where a picture is written."""
    path = file_to_write(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"{text}: expected the path of a .png file")
    return path


def keep_inputs(args: argparse.Namespace) -> None:
    """See to it that no file is read and written over by the same command.

    Raises:
        UserError: one would be.
    """
    from internvl_chat.contracts import UserError

    given = [(flag, path) for flag, value in vars(args).items() for path in _paths(value) if path.exists()]
    for written, target in given:
        for flag, path in given:
            if written in _WRITTEN and flag != written and path.samefile(target):
                raise UserError(f"--{written} {target}: is read too and would be lost: give another file to write")


def _paths(value: object) -> list[Path]:
    """The files that a flag names; runs are given as (name, file)."""
    values = value if isinstance(value, list) else [value]
    return [path for one in values for path in (one if isinstance(one, tuple) else (one,)) if isinstance(path, Path)]


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a picture; its folder is made.

    Raises:
        UserError: it cannot be written there.
    """
    from internvl_chat.contracts import UserError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def tell(args: argparse.Namespace, text: str, /, **result: Any) -> None:
    """Print what a command made: a line to read, or with --json the same as one object."""
    sys.stdout.write(f"{json.dumps(result, default=str)}\n" if args.json else f"{text}\n")


def rounded(content: Any) -> Any:
    """Scores as they are shown: to six places, inside objects and lists too. What is read again keeps all."""
    if isinstance(content, float):
        return round(content, 6)
    if isinstance(content, Mapping):
        return {name: rounded(value) for name, value in content.items()}
    return [rounded(value) for value in content] if isinstance(content, (list, tuple)) else content


def add_meta(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--meta", "--meta_path", type=Path, default=DEFAULT_META, help="meta JSON (default: %(default)s)"
    )


def add_base(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", "--model_name_or_path", help="the checkpoint's base, if it was moved since training")


def add_dtype(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtype",
        choices=PRECISIONS,
        default="auto",
        help="of the weights (default: bfloat16 on a GPU that has it, float16 on others, float32 on a CPU)",
    )


def add_video_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--video_backend", choices=VIDEO_BACKENDS, default="pyav", help="video reader (default: %(default)s)"
    )


def add_prediction_options(parser: argparse.ArgumentParser) -> None:
    """Which checkpoints are asked about which dataset, and how captions are decoded."""
    add = parser.add_argument
    add("--model", "--checkpoint_path", type=Path, help="checkpoint folder (default: the newest under --work_dirs)")
    add("--ensemble", type=Path, nargs="+", metavar="CHECKPOINT", help="checkpoints that decode in step instead")
    add("--weights", type=float, nargs="+", help="their weights, above 0; only ratios matter (default: all alike)")
    add("--work_dirs", type=Path, default=Path("work_dirs"), help="where to look for it (default: %(default)s)")
    add_base(parser)
    add_dtype(parser)
    add_meta(parser)
    each = "; several: one for each of --ensemble"
    add(
        "--prompt_form",
        choices=PROMPT_FORMS,
        nargs="+",
        help=f"the question (default: that of the meta JSON's annotations){each}",
    )
    add(
        "--num_frames",
        type=positive_int,
        nargs="+",
        help=f"frames shown of a video (default: 32, or the nearest number in training){each}",
    )
    add_decoding_options(parser)
    add(
        "--keep_lora",
        action="store_true",
        help="leave LoRA beside the weights, as in training (default: folded into them, which is faster)",
    )
    add_feeding_options(parser)


def add_max_new_tokens(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max_new_tokens", type=positive_int, default=MAX_NEW_TOKENS, help="longest answer (default: %(default)s)"
    )


def add_decoding_options(parser: argparse.ArgumentParser) -> None:
    """How captions are decoded; `Decoding` has fields of the same names."""
    add_max_new_tokens(parser)
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="above 0: sample (default: greedy or beam search)"
    )
    add_search_options(parser)


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """How several answers to a question are found."""
    add = parser.add_argument
    add("--num_beams", type=positive_int, default=1, help="beams (default: %(default)s)")
    add("--top_p", type=float, default=1.0, help="sample from this share of the probability (default: %(default)s)")
    add(
        "--num_candidates",
        type=positive_int,
        default=1,
        help="captions written for each video: the best beams, then samples if there is a --temperature "
        "(default: %(default)s)",
    )
    add("--seed", type=count, default=0, help="of the samples (default: %(default)s)")


def add_feeding_options(parser: argparse.ArgumentParser) -> None:
    """What decides the speed of prediction and not its text."""
    add = parser.add_argument
    add(
        "--batch_tokens",
        type=positive_int,
        help="tokens of keys and values that a batch may keep, all beams counted (default: what the GPU has room for; "
        "65536 on a CPU)",
    )
    add(
        "--num_workers",
        type=count,
        help="processes that decode pictures ahead (default: this rank's share of the cores, at most 8)",
    )
    add_video_backend(parser)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model is asked, and how its answers are decoded."""
    add = parser.add_argument
    add(
        "--model",
        "--checkpoint_path",
        required=True,
        help="base, training checkpoint or merged model: a folder or a hub id",
    )
    add_base(parser)
    add_dtype(parser)
    add("--conv_style", help="conversation template, where the model's files do not tell")
    add("--max_dynamic_patch", type=positive_int, help="most tiles of an image (default: as in training, a base: 12)")
    add("--num_frames", type=positive_int, help="frames shown of a video (default: 32, or the nearest in training)")
    add_max_new_tokens(parser)
    add("--temperature", type=float, default=0.0, help="above 0: sample (default: greedy)")


def add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split",
        choices=("public", "private", "both", "records"),
        help="test videos by the challenge's numbers, or what the records ask (default: both, or records where there "
        "are no such videos)",
    )


def add_sheet_options(parser: argparse.ArgumentParser) -> None:
    """A picture of what was said, beside what was shown."""
    add = parser.add_argument
    add("--sheet", type=png_path, help="write a contact sheet PNG: frames with their box, and the captions")
    add("--sheet_clips", type=positive_int, default=4, help="clips on the sheet (default: %(default)s)")


def run_file(text: str) -> tuple[str, Path]:
    """An argparse type: `[NAME=]FILE`, a run's file and how it is called, by default the file's name."""
    name, equals, path = text.partition("=")
    # A path may hold the sign too: runs/lr=2e-5/result.json.
    is_named = equals and "/" not in name and not Path(text).is_file()
    return (name, Path(path)) if is_named else (Path(text).stem, Path(text))


def add_java_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no_java", action="store_true", help="BLEU, CIDEr and ROUGE-L without Java, and no METEOR; named apart"
    )


def add_scoring_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """What captions are scored against, in which groups, and how sure the scores are."""
    add = parser.add_argument
    add("--references", type=Path, required=required, help="{id: [caption, ...]}, or records with answers")
    add("--tracks", type=Path, help="by size and presence too: records, the dataset's root, or JSON {id: [box, ...]}")
    add_java_option(parser)
    add("--spice", action="store_true", help="SPICE too; needs models that are a download of their own")
    add("--resamples", type=positive_int, default=1000, help="of the bootstrap (default: %(default)s)")
    add("--seed", type=count, default=0, help="of the bootstrap (default: %(default)s)")

"""Write this project's annotation from another project's data, or the other way round.

    python -m internvl_chat convert-data --from llamafactory data.json --out lines.jsonl --meta_out meta.json
    python -m internvl_chat convert-data --from lasot /data/LaSOT --out lasot.jsonl --meta_out lasot.json
    python -m internvl_chat convert-data --to minicpm-v records.jsonl --root frames --out train.json --num_frames 24

--from llamafactory and ms-swift read message lists (JSON or JSONL), coco a detection file, refcoco phrases with a
region each ("sent", "bbox" x1 y1 x2 y2 in pixels), lasot and got10k folders of tracked videos, mgit a split's; llava
(Video-ChatGPT's too), sharegemini, videoinstruct, minicpm-v and idefics3 go both ways. Described objects with tracks:
hcstvg (HC-STVG v2), mevis (a split's folder; masks become boxes), vid-sentence, a2d-sentences, videoref (VideoRef45K's
lists). artemis reads the lists of Artemis' three stages; its questions about objects are one fixed form, or with
--question_seed the lists' own, or else drawn ones. cogvlm2 reads a folder with images or videos and a label each, as
CogVLM2's fine-tuning demo has it. And what annotation tools export: mot, cvat (for video), boxes-csv (named columns),
label-studio, yolo-tracks, coco-vid. With --to minicpm-v and idefics3 a video is a folder of frames, whose frames become
images. Paths are relative to --root, which no file may leave. `annotate` reads the challenge's own train.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_chat.choices import CONVERTERS, CONVERTERS_BOTH_WAYS, PROMPT_FORMS
from internvl_chat.commands.options import add_json, count, counted, file_to_write, positive_int, tell

if TYPE_CHECKING:
    from internvl_chat.contracts import UserError
    from internvl_chat.data.converters.forms.conversion import Conversion
    from internvl_chat.data.records.reader import RecordReader

CSV_UNITS = ("pixels", "unit", "percent", "thousandths")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, help="the file; of those that are folders, the folder")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--from", dest="format", choices=CONVERTERS, help="what the source is; records are written")
    way.add_argument("--to", choices=CONVERTERS_BOTH_WAYS, help="what is written; the source holds records")
    add("--out", type=file_to_write, required=True, help="file to write: JSONL, or with --to a .json list")
    add("--num_frames", type=positive_int, help="--to minicpm-v, idefics3: most frames of a video (default: all)")
    add("--meta_out", type=file_to_write, help="also write a meta JSON here")
    add("--root", type=Path, help="folder that paths are relative to (default: the source's folder)")
    add("--skip_bad", type=file_to_write, metavar="LIST", help="leave out what has a fault, and list the faults here")
    add("--captions", type=Path, help="of tracks: {'captions': {sequence or object: [caption, ...]}}, before their own")
    add("--prompt_form", choices=PROMPT_FORMS, default="coordinates", help="of tracks (default: %(default)s)")
    add("--question_seed", type=int, metavar="N", help="artemis: draw the questions (default: ask one fixed form)")
    add("--questions", type=Path, metavar="FILE", help="artemis: draw from these, one a line with <bbox> once")
    add("--unit", choices=CSV_UNITS, default="pixels", help="boxes-csv: of the numbers (default: %(default)s)")
    add("--first_frame", type=count, default=0, help="boxes-csv: the first frame's number (default: %(default)s)")
    add("--interpolate", action="store_true", help="boxes-csv: fill in the frames between an object's boxes")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.data.converters.forms.collecting import converted
    from internvl_chat.data.converters.forms.conversion import Conversion
    from internvl_chat.data.converters.forms.tracking import Question
    from internvl_chat.data.records.annotations import read_captions
    from internvl_chat.data.records.meta_files import write_meta
    from internvl_chat.data.records.reader import RecordReader
    from internvl_chat.files import write_jsonl

    if args.to and args.meta_out:
        raise UserError("--meta_out: a meta JSON names records, and --to writes another project's: leave it out")
    if not args.source.exists():
        raise UserError(f"{args.source}: not found")
    # A dataset's folder is its own root; a file's is the folder that it lies in.
    root = args.root or (args.source if args.source.is_dir() else args.source.parent)
    if not root.is_dir():
        raise UserError(f"{root}: is no folder; give the folder that paths are relative to as --root")
    reader = RecordReader(root)
    options = Conversion(
        root,
        Question(PROMPT_FORMS[args.prompt_form], read_captions(args.captions) if args.captions else {}),
        args.num_frames,
        args.unit,
        args.first_frame,
        args.interpolate,
        **_drawn_questions(args),
    )
    if args.to:
        return _write_other(args, reader, options)
    faults = options.faults

    def readable(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
        reader.read(record, f"{args.source}: record {record['id']!r}")
        yield record

    records = list(converted(_converter(args.format).records(args.source, options), readable, faults))
    _tell_faults(args, faults)
    if not records:
        raise UserError(f"{args.source}: holds no records")
    if args.captions:
        _check_captions(args.captions, options.question.captions, records)
    _tell_labels(records)
    _tell_key_frames(records)
    written = write_jsonl(args.out, records)
    _list_faults(args, faults)
    if args.meta_out:
        write_meta(args.meta_out, args.out.stem, root, args.out, data_augment=False, repeat_time=1, length=written)
    tell(args, f"{args.out}: {counted(written, 'record')}", out=args.out, records=written, faults=len(faults))
    return 0


def _tell_faults(args: argparse.Namespace, faults: Sequence[UserError]) -> None:
    """Tell all that is wrong with a source at once, unless what has a fault is to be left out.

    Raises:
        UserError: it has one.
    """
    from internvl_chat.contracts import UserError
    from internvl_chat.files import MOST_LISTED

    if faults and not args.skip_bad:
        for fault in faults[:-1][:MOST_LISTED]:
            sys.stderr.write(f"error: {fault}\n")
        if (more := len(faults) - 1 - MOST_LISTED) > 0:
            sys.stderr.write(f"... and {counted(more, 'fault')} more, before the last:\n")
        raise UserError(f"{faults[-1]}; nothing was written: --skip_bad LIST would leave out what has a fault")


def _list_faults(args: argparse.Namespace, faults: Sequence[UserError]) -> None:
    from internvl_chat.files import write_text

    if faults:
        write_text(args.skip_bad, "".join(f"{fault}\n" for fault in faults))
        sys.stderr.write(f"{args.skip_bad}: {counted(len(faults), 'fault')}, what has one was left out\n")


def _check_captions(path: Path, captions: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
    """See to it that captions of one's own reach their objects, and tell which do not.

    Raises:
        UserError: none does.
    """
    from internvl_chat.contracts import UserError

    # A record's id is its object's, and the number of the caption.
    objects = {str(record["id"]).rpartition("-")[0] for record in records}
    unused = sorted(captions.keys() - objects)
    example = min(objects - captions.keys(), default="")
    hint = f"; objects have ids such as {example!r}" if example else ""
    if unused and len(unused) == len(captions):
        raise UserError(f"--captions {path}: none of its ids is an object's, such as {unused[0]!r}{hint}")
    if unused:
        said = f"{counted(len(unused), 'id')} of {path}: no object is called so, such as {unused[0]!r}{hint}"
        sys.stderr.write(f"warning: {said}\n")


def _tell_labels(records: Sequence[Mapping[str, Any]]) -> None:
    """Say which objects have no caption, so that their label alone is what a model learns to say of them."""
    named = [record for record in records if "tracks" in record]
    labels = [record for record in named if record["conversations"][-1]["value"] == record["tracks"][0]["name"]]
    if labels:
        label, record_id = labels[0]["tracks"][0]["name"], labels[0]["id"]
        sys.stderr.write(
            f"warning: {len(labels)} of {counted(len(named), 'record')} have no caption, and their label is the answer "
            f"that is learnt, such as {label!r} of {record_id!r}: write captions beside the boxes, or give --captions\n"
        )


def _tell_key_frames(records: Sequence[Mapping[str, Any]]) -> None:
    """Say which tracks may be key frames that nobody called so: the object is absent between them then."""
    import numpy as np

    from internvl_chat.data.records.given.judged_tracks import few_of_span

    few = [
        (record["id"], *told)
        for record in records
        for track in record.get("tracks", ())
        if isinstance(track["boxes"], dict) and "interpolate" not in track
        if (told := few_of_span(np.array([float(key) for key in track["boxes"]]), track.get("absent", ())))
    ]
    if few:
        record_id, count, span = few[0]
        sys.stderr.write(
            f"warning: {counted(len(few), 'track')} may be key frames, such as that of {record_id!r} with a box at "
            f"{count} of {span} frames: the object reads as absent from the others; --interpolate fills them "
            "(boxes-csv, a2d-sentences)\n"
        )


def _drawn_questions(args: argparse.Namespace) -> dict[str, Any]:
    """How questions about objects are drawn, where they are."""
    from internvl_chat.contracts import UserError
    from internvl_chat.data.prompts.object_questions import read_forms

    if args.questions and args.question_seed is None:
        raise UserError("--questions: nothing is drawn from it without a seed; give --question_seed 0")
    forms = {"question_forms": read_forms(args.questions)} if args.questions else {}
    return {"question_seed": args.question_seed, **forms}


def _write_other(args: argparse.Namespace, reader: RecordReader, options: Conversion) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.data.converters.forms.collecting import converted_objects
    from internvl_chat.files import write_json, write_jsonl

    called: dict[str, str] = {}

    def convert(record: dict[str, Any], where: str, _: int) -> dict[str, Any]:
        sample = reader.read(record, where)
        if sample.tracks and "tracks" not in record:
            raise UserError(f"{where}: has a box file beside its video, which the other format cannot say")
        if sample.video_path is not None:
            # IntentVC's annotations leave out a folder, which only this project knows.
            record = {**record, "video": sample.video_path.relative_to(reader.root).as_posix()}
        said: dict[str, Any] = _converter(args.to).write(record, where, options)
        if "video_id" in said and called.setdefault(said["video_id"], record["video"]) != record["video"]:
            raise UserError(
                f"{where}: {record['video']} and {called[said['video_id']]} would both be {said['video_id']!r} there"
            )
        return said

    written = list(converted_objects(args.source, convert, options.faults))
    _tell_faults(args, options.faults)
    if not written:
        raise UserError(f"{args.source}: holds no records")
    if args.out.suffix == ".json":
        write_json(args.out, written)
    else:
        write_jsonl(args.out, written)
    _list_faults(args, options.faults)
    said = f"{args.out}: {counted(len(written), 'record')}"
    tell(args, said, out=args.out, records=len(written), faults=len(options.faults))
    return 0


def _converter(name: str) -> Any:
    """The module of a source."""
    return import_module(f"internvl_chat.data.converters.{name.replace('-', '_')}")

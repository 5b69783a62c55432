"""Train and score the method's table: every way to tell the model which object is meant, on your data and budget.

    python -m internvl_chat ablation --captions train.json --root /data/IntentVC --out work_dirs/ablation \\
        --max_steps 200 --training_flags "--learning_rate 5e-5" --prediction_flags "--num_frames 32"

Rows are prompt forms (text only, coordinates, red box, both), each without box adapters, with one on the ViT's output
and with one after each of its last layers; then every other control of the folder data/controls by itself. Each is
trained by a recipe's shell script, whose environment (GPUS, BATCH_SIZE, PER_DEVICE_BATCH_SIZE) is handed on, captions
the same held-out clips, and is scored.

Held out are the ids of --references; without them a share of the videos of --captions, all ids of a video together.
Rows that are finished are not run again. Everything lands in --out, the table as ablation.md; the last line printed is
JSON. Needs a checkout of the repository, for its scripts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_chat.choices import CONTROLS, PROMPT_FORMS
from internvl_chat.commands.options import add_json, folder_to_write, positive_int, tell
from internvl_chat.steps import REPOSITORY, StepFailed
from internvl_chat.steps import run as run_command

ADAPTERS = {"none": 0, "single": 1, "multi": 5}
DEFAULT_SCRIPT = Path("shell/internvl3.0/2nd_finetune/roiattention_ml.sh")
# The controls that no prompt form speaks of, and that no adapter is: each has a row of its own.
OTHER_CONTROLS = tuple(name for name in CONTROLS if name not in {"box_adapter"}.union(*PROMPT_FORMS.values()))
METRICS = ("BLEU-4", "METEOR", "CIDEr", "ROUGE-L")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--captions", type=Path, required=True, help="train.json: {'captions': {id: [caption, ...]}}")
    add("--root", type=Path, required=True, help="the videos' root, with object_bboxes.npy beside each")
    add("--references", type=Path, help="captions of the held-out clips (default: hold some of --captions out)")
    add("--held_out", type=float, default=0.1, help="share of the videos without --references (default: %(default)s)")
    add("--model", "--model_name_or_path", default="OpenGVLab/InternVL3-8B", help="base (default: %(default)s)")
    add("--prompt_forms", nargs="+", choices=PROMPT_FORMS, default=list(PROMPT_FORMS), help="(default: all)")
    add("--adapters", nargs="+", choices=ADAPTERS, default=list(ADAPTERS), help="(default: all)")
    add("--controls", nargs="*", choices=OTHER_CONTROLS, default=list(OTHER_CONTROLS), help="(default: all)")
    add("--max_steps", type=positive_int, help="of each training run (default: the recipe's epochs)")
    add("--script", type=Path, default=DEFAULT_SCRIPT, help="recipe (default: %(default)s)")
    add("--training_flags", type=shlex.split, default=[], help="handed to the recipe, in one string")
    add("--prediction_flags", type=shlex.split, default=[], help="handed to eval_const.py, in one string")
    add("--object_name", action="append", default=[], metavar="CATEGORY=NAME", help="as for `annotate`")
    add("--out", type=folder_to_write, default=Path("work_dirs/ablation"), help="(default: %(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.data.records.annotations import read_captions
    from internvl_chat.files import write_json, write_text

    if not (REPOSITORY / args.script).is_file():
        raise UserError(f"{REPOSITORY / args.script}: not found: run this in a checkout of the repository")
    captions = read_captions(args.captions)
    if args.references:
        references = read_captions(args.references)
    else:
        references = {i: captions[i] for i in held_out_ids(captions, args.held_out, args.root)}
    trained_on = {i: texts for i, texts in captions.items() if i not in references}
    if not references or not trained_on:
        raise UserError(f"{len(trained_on)} ids to train on and {len(references)} held out: expected some of each")

    runner = _Rows(args, args.out.resolve(), references)
    rows = [Row(form, adapter) for form in args.prompt_forms for adapter in args.adapters]
    rows += [Row("text_only", "none", control) for control in args.controls]
    # What the trainings say is progress: with --json it stays off what is parsed.
    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        runner.prepare(trained_on)
        scores = {row: runner.scores_of(row) for row in rows}
    text = table(scores)
    write_text(runner.out / "ablation.md", text)
    summary = {row.name: of_row for row, of_row in scores.items()}
    write_json(runner.out / "ablation.json", summary)
    tell(args, f"\n{text}\n{json.dumps(summary)}", **summary)
    return 0


@dataclass(frozen=True)
class Row:
    """A row of the table: a prompt form with a number of box adapters, and what else points at the object."""

    form: str
    adapter: str
    control: str = ""

    @property
    def name(self) -> str:
        return self.control or f"{self.form}-{self.adapter}"

    @property
    def marks(self) -> list[str]:
        """The first cells of the table's line."""
        shown = ["✓" if name in PROMPT_FORMS[self.form] else "" for name in ("drawn_box", "coordinates")]
        return [*shown, self.adapter.replace("none", self.control.replace("_", " "))]

    def flags(self) -> list[str]:
        """Of the row's training."""
        from internvl_chat.data.controls.base import control_kinds, name_of

        others = [kind.switched_on.split() for kind in control_kinds() if name_of(kind) == self.control]
        return ["--num_adapter_layers", str(ADAPTERS[self.adapter]), *(word for words in others for word in words)]


@dataclass(frozen=True)
class _Rows:
    """Trains, captions and scores the rows of the table in `out`, by the commands that a user would type."""

    args: argparse.Namespace
    out: Path
    references: Mapping[str, Sequence[str]]

    @property
    def base(self) -> str:
        name = self.args.model
        return str(Path(name).resolve()) if Path(name).is_dir() else name

    def prepare(self, trained_on: Mapping[str, Sequence[str]]) -> None:
        """Write down what the rows share.

        Raises:
            UserError: the folder holds rows of other data or settings.
        """
        from internvl_chat.contracts import UserError
        from internvl_chat.files import read_json, write_json

        args, kept = self.args, self.out / "settings.json"
        settings = {"base": self.base, "script": str(args.script), "max_steps": args.max_steps}
        settings |= {"names": args.object_name, "root": str(args.root.resolve())}
        settings |= {"training_flags": args.training_flags, "prediction_flags": args.prediction_flags}
        settings |= {"captions": trained_on, "references": self.references}
        if kept.is_file() and read_json(kept) != json.loads(json.dumps(settings)):
            raise UserError(f"{self.out}: holds rows of other data or settings: give another --out, or remove it")
        write_json(kept, settings)
        write_json(self.out / "references.json", self.references)
        write_json(self.out / "ids.json", list(self.references))
        write_json(self.out / "captions.json", {"captions": trained_on})

    def scores_of(self, row: Row) -> dict[str, float]:
        """The scores of a row, and the share of captions that are a reference word for word."""
        from internvl_chat.files import read_json

        folder = self.out / row.name
        scores = folder / "results" / "scores.json"
        if not scores.is_file():
            meta = self._annotate(row.form)
            self._train(folder, meta, row)
            self._caption(folder, meta)
        said = read_json(folder / "results" / "result.json")["captions"]
        exact = sum(said.get(i) in texts for i, texts in self.references.items()) / len(self.references)
        return {**read_json(scores)["scores"], "exact": exact}

    def _annotate(self, form: str) -> Path:
        meta = self.out / f"{form}.json"
        names = [word for name in self.args.object_name for word in ("--object_name", name)]
        run_command(
            [sys.executable, "-m", "internvl_chat", "annotate", "--captions", self.out / "captions.json", *names]
            + ["--prompt_form", form, "--root", self.args.root.resolve()]
            + ["--out", meta.with_suffix(".jsonl"), "--meta_out", meta]
        )
        return meta

    def _train(self, folder: Path, meta: Path, row: Row) -> None:
        args, done = self.args, folder / "trained"
        if done.is_file():
            return
        steps = ["--max_steps", args.max_steps, "--save_steps", args.max_steps] if args.max_steps else []
        folder.mkdir(exist_ok=True)
        run_command(
            ["sh", args.script, *row.flags(), *steps, *args.training_flags],
            {"MODEL_PATH": self.base, "META_PATH": str(meta), "OUTPUT_DIR": str(folder)},
            log=folder / "launch.log",
        )
        done.touch()

    def _caption(self, folder: Path, meta: Path) -> None:
        try:
            run_command(
                [sys.executable, "eval_const.py", "--model", folder, "--meta", meta]
                + ["--ids", self.out / "ids.json", "--references", self.out / "references.json"]
                + ["--out", folder / "results", *self.args.prediction_flags]
            )
        except StepFailed:
            # A clip that cannot be read was named, and the others are scored.
            if not (folder / "results" / "scores.json").is_file():
                raise


def held_out_ids(captions: Mapping[str, Sequence[str]], share: float, root: Path) -> list[str]:
    """The ids of a share of the videos, chosen by content: a video shown under two ids is one video.

    Raises:
        UserError: a video cannot be read, or `share` is none.
    """
    from internvl_chat.contracts import UserError
    from internvl_chat.data.media.sources import content_mark
    from internvl_chat.data.records.intentvc import video_path_of

    if not 0 < share < 1:
        raise UserError(f"--held_out {share:g}: expected a share between 0 and 1")
    marks = {i: content_mark(video_path_of(root, i)) for i in captions}
    videos = sorted(set(marks.values()))
    chosen = set(videos[: max(1, round(share * len(videos)))])
    return [i for i, mark in marks.items() if mark in chosen]


def table(rows: Mapping[Row, Mapping[str, Any]]) -> str:
    """The paper's form: what tells the model which object is meant, then the scores; the best of each in bold."""
    heads = ["red box", "coordinates", "adapter, or other", *METRICS, "exact"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    best = {name: max(scores[name] for scores in rows.values()) for name in (*METRICS, "exact")}
    for row, scores in rows.items():
        cells = [f"{scores[m]:.4f}" if scores[m] < top else f"**{scores[m]:.4f}**" for m, top in best.items()]
        lines.append(f"| {' | '.join([*row.marks, *cells])} |")
    return "\n".join(lines) + "\n"

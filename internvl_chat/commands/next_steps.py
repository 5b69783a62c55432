"""What is said beside a command's result, on stderr, so that what is parsed stays as it is: above all, what now."""

from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

from internvl_chat.command_line import program

_RUN = program()
_EVAL, _NPY = f"{_RUN} eval", f"{_RUN} npy"


def tell_next(command: str, args: Namespace, found_faults: bool = False) -> None:
    """Write, last of all, what is usually done next with what `command` made; of torchrun's ranks the first does."""
    step = (MENDING if found_faults else NEXT).get(command)
    said = step(args) if step is not None and os.environ.get("RANK", "0") == "0" else ""
    if said:
        sys.stderr.write(f"next: {said}\n")


def _q(path: object) -> str:
    return shlex.quote(str(path))


def _do(command: str, why: str = "") -> str:
    """A line that can be pasted into a shell whole, what it is for included."""
    return f"{command}  # {why}" if why else command


def _train(meta: object) -> str:
    return _do(f"{_RUN} train roiattention_ml --meta {meta}", "--dry_run first; tiny in place of the 8B's on a CPU")


def _check(meta: object, more: str = "") -> str:
    return _do(f"{_RUN} check {meta}", f"finds what is wrong with it{more}")


def _of_data(args: Namespace) -> str:
    """A file of records: its meta JSON is checked, or one is needed."""
    if args.meta_out:
        return _check(_q(args.meta_out))
    return _check("META.json", f"; META.json names {_q(args.out)} as 'annotation' (--meta_out writes one)")


def _after_check(args: Namespace) -> str:
    trained = f"{_RUN} train roiattention_ml --meta {_q(args.meta)} trains (tiny, on a CPU)"
    return _do(f"{_RUN} picture --meta {_q(args.meta)} --line 1", f"draws what the model sees; {trained}")


def _after_track(args: Namespace) -> str:
    if args.records:
        return _of_data(args)
    if Path(args.out).suffix == ".txt":
        return _do(f"{_NPY} --root ROOT", "makes a dataset's folder ready; chat --tracks takes the file as it is")
    return f"{_RUN} chat --model CKPT --video {_q(args.video)} --tracks {_q(args.out)} --prompt_form coordinates"


def _after_boxes(args: Namespace) -> str:
    made = f"{_RUN} annotate --captions CAPTIONS.json --out data.jsonl --meta_out data.json"
    return _do(f"{made} --root {_q(args.root or 'DATA')}", "writes what training reads")


def _after_captions(args: Namespace) -> str:
    model = f" --model {_q(args.model)}" if args.model else ""
    probed = f"{_RUN} control{model} --meta {_q(args.meta)} says whether they follow the box"
    references = f" --references {_q(args.references)}" if args.references else ""
    shown = "captions and scores" if args.references else "the captions (with --references, their scores)"
    return _do(f"{_RUN} report {_q(args.out)}{references} --out report.html", f"shows {shown}; {probed}")


def _after_evaluation(args: Namespace) -> str:
    again = f"{_RUN} score {args.task} --data {_q(args.data)} --predictions {_q(args.out)} scores them again"
    return _do(f"{_RUN} report {_q(args.out)} --out report.html", f"shows the answers; {again}")


def _after_answers(args: Namespace) -> str:
    pair = f"--predictions {_q(args.out)} --references {_q(args.records)}"
    return _do(f"{_RUN} score {pair}", "scores captions; score-boxes with the same flags, boxes")


def _after_control(args: Namespace) -> str:
    if args.out:
        return _do(f"{_RUN} report --control {_q(args.out)} --out report.html", "shows the clips; --references, scores")
    return "--out FILE keeps rates and captions, for report --control FILE" + (
        "" if args.sheet else "; --sheet PNG draws them"
    )


def _after_score(args: Namespace) -> str:
    if args.task:
        asked = f"{_RUN} evaluate {args.task} --data {_q(args.data)} --model OTHER --out OUT"
        return _do(asked, "asks another model")
    pair = f"{_q(args.predictions)} --references {_q(args.references)}"
    return _do(f"{_RUN} report {pair} --out report.html", "shows them clip by clip; score --baseline compares two runs")


def _after_rank(args: Namespace) -> str:
    # Without references the runs were scores, which have no captions to show.
    runs, references = "A.json B.json", "REFERENCES"
    if args.references:
        runs, references = " ".join(_q(path) for _, path in args.runs), _q(args.references)
    return _do(f"{_RUN} report {runs} --references {references} --out report.html", "shows where predictions differ")


def _after_videos(args: Namespace) -> str:
    return _do(f"{_RUN} report {_q(args.out)} --out report.html", "shows the captions")


def _after_recipes(args: Namespace) -> str:
    """Of `--list` and `--write`; a training's script says by itself what comes next."""
    if args.recipe:
        return ""
    if args.write:
        return _do(f"META_PATH=META.json bash {_q(args.write[1])} --dry_run", "says what it would train")
    return _train("META.json")


def _after_inspection(args: Namespace) -> str:
    return _do(f"{_RUN} plan --model {_q(args.checkpoint)} --meta META.json", "says what training it takes")


NEXT: Mapping[str, Callable[[Namespace], str]] = {
    "shapes": lambda args: _do(f"{_NPY} --root {_q(args.out)}", "writes the boxes beside the videos"),
    "flowchart": lambda args: _check(_q(args.out / "meta.json")),
    "render-texts": lambda args: _check(_q(args.out / "meta.json")),
    "extract-frames": lambda args: (
        f"{_RUN} select-records RECORDS --tokenizer MODEL --root {_q(args.out)} --out OUT.jsonl"
    ),
    "extract-features": lambda args: "name the files as 'video', or as 'features' beside a 'video', in the records",
    "annotate": _of_data,
    "track": _after_track,
    "convert-data": lambda args: "train with the other project's own script" if args.to else _of_data(args),
    "select-records": lambda args: _check("META.json", f"; META.json names {_q(args.out)} as 'annotation'"),
    "check": _after_check,
    "picture": lambda args: _train(_q(args.meta)),
    "train": _after_recipes,
    "chat": lambda args: _do(f"{_EVAL} --model {_q(args.model)} --meta META.json", "captions a whole data set"),
    "answer": _after_answers,
    "evaluate": _after_evaluation,
    "caption-videos": _after_videos,
    "control": _after_control,
    "score": _after_score,
    "score-boxes": lambda _: "--html FILE and --sheet PNG, with --root, draw predictions over truth",
    "score-answers": lambda _: "give the answers of another model to the same command, and compare the intervals",
    "consensus": lambda args: f"{_RUN} score --predictions {_q(args.out)} --references REFERENCES",
    "validate-submission": lambda _: "hand the file in, if it is valid",
    "rank": _after_rank,
    "report": lambda args: f"open {_q(args.out)} in a browser; it can be sent as it is",
    "ablation": lambda args: f"the folders of {_q(args.out)} hold each row's checkpoint and captions, for report",
    "inspect": _after_inspection,
    "plan": lambda args: _train(_q(args.meta) if args.meta else "META.json"),
    "convert": lambda args: f"{_RUN} inspect {_q(args.target)}",
    "merge": lambda args: _do(f"{_RUN} chat --model {_q(args.target)} --video VIDEO", "needs no base any more"),
    "verify": lambda _: "a model that holds can be trained, captioned with and merged; one that does not is a bug",
    "eval": _after_captions,
    "npy": _after_boxes,
}

# Commands whose results stay, so that they do on the next call only what could not be done.
_GO_ON = ("answer", "caption-videos", "evaluate", "extract-features", "extract-frames", "npy", "track")


def _after_faults(args: Namespace) -> str:
    mended = f"; {_RUN} check {_q(args.meta)} --fix FOLDER writes mended copies" if args.mendable else ""
    return f"mend what is named and check again{mended}"


# What is done about the faults that a command found.
MENDING: Mapping[str, Callable[[Namespace], str]] = {
    **dict.fromkeys(_GO_ON, lambda _: "mend what is named; the same command again does what is left"),
    "control": lambda _: "mend what is named, and probe again",
    "check": _after_faults,
    "validate-submission": lambda _: "mend what is named, and validate the file again",
}

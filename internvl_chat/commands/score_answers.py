"""Score a file of answers that you already have: multiple choice, descriptions, or open answers by a judge.

    python -m internvl_chat score-answers answers.jsonl --as choices
    python -m internvl_chat score-answers answers.jsonl --as captions --no_java
    OPENAI_API_KEY=... python -m internvl_chat score-answers answers.jsonl --as qa --judge_model NAME --out qa.json

choices reads {"prompt", "GT", "pred", "category"}; captions, as VideoRefBench has them, {"video_name", "groundtruth",
"pred"}. The others ask a judge, any OpenAI-compatible endpoint, about {"question", "answer", "pred"} ("Q" and "A" will
do; consistency: "Q1", "Q2", "A", "pred1", "pred2") or, for subject, appearance, action and hallucination, about
{"groundtruth", "pred"}. Answers that are missing or cannot be read stay in every denominator and are counted.

A judge's key is read from the environment and kept nowhere. What was judged lies beside --out, in a file of progress:
the same command goes on from it, and judges nothing twice.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from internvl_chat.choices import JUDGEMENTS
from internvl_chat.commands.options import add_java_option, add_json, count, file_to_write, positive_int, rounded, tell

# What the original's script keeps: predictions of more than 5 and less than 300 characters.
FILTER_CHARACTERS = (5, 300)
_FLAGS_OF_CAPTIONS = ("spice", "bertscore", "bertscore_layer", "filter")
_FLAGS_OF_A_JUDGE = ("judge_model", "api_base", "prices")


def prices(text: str) -> tuple[float, float]:
    """An argparse type: dollars a million tokens, read and written."""
    try:
        read, written = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected two numbers, such as 0.5,1.5") from None
    if not (0 <= read < math.inf and 0 <= written < math.inf):
        raise argparse.ArgumentTypeError(f"{text}: expected prices from 0")
    return read, written


def seconds(text: str) -> float:
    """An argparse type: a time above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: expected a number of seconds above 0")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("answers", type=Path, help="JSONL, or a list in a .json")
    add("--as", dest="kind", choices=("choices", "captions", *JUDGEMENTS), required=True, help="what to score")
    add("--out", type=file_to_write, help="write the result as JSON here; judgements need it")
    add_java_option(parser)
    add("--spice", action="store_true", help="captions: SPICE too; needs models that are a download of their own")
    add("--bertscore", type=Path, metavar="FOLDER", help="captions: BERTScore too, by this model (bertscore.txt)")
    add("--bertscore_layer", type=positive_int, help="the layer that it compares (default: known by the folder's name)")
    add("--filter", action="store_true", help="captions: leave out what the original leaves out, told by coverage")
    add("--resamples", type=positive_int, default=1000, help="of the bootstrap (default: %(default)s)")
    add("--seed", type=count, default=0, help="of the bootstrap (default: %(default)s)")
    add("--judge_model", help="the judge's name at its endpoint")
    add("--api_base", help="its endpoint, such as http://localhost:8000/v1 (default: OpenAI's)")
    add("--key_variable", default="OPENAI_API_KEY", help="environment variable of its key (default: %(default)s)")
    add("--in_flight", type=positive_int, default=8, help="requests at a time (default: %(default)s)")
    add("--retries", type=count, default=5, help="further tries of a request that fails (default: %(default)s)")
    add("--timeout_s", type=seconds, default=60.0, help="seconds a request may take (default: %(default)s)")
    add("--prices", type=prices, metavar="READ,WRITTEN", help="dollars a million tokens, for the cost")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.files import write_json

    _refuse_flags_of_others(args)
    if args.kind == "choices":
        result, status = _choices(args), 0
    elif args.kind == "captions":
        result, status = _captions(args), 0
    else:
        result = _judged(args)
        status = 1 if result["failed"] else 0
    if args.out:
        write_json(args.out, result)
    # To be read it is JSON too, a line a number.
    shown = rounded(result)
    tell(args, json.dumps(shown, indent=1, ensure_ascii=False), **shown)
    return status


def _refuse_flags_of_others(args: argparse.Namespace) -> None:
    """A flag that the kind of answers has no use for would be taken for one that was obeyed."""
    from internvl_chat.contracts import UserError

    others: tuple[str, ...] = () if args.kind == "captions" else _FLAGS_OF_CAPTIONS
    others += () if args.kind in JUDGEMENTS else _FLAGS_OF_A_JUDGE
    idle = [f"--{flag}" for flag in others if getattr(args, flag)]
    if idle:
        raise UserError(f"--as {args.kind} has no use for {', '.join(idle)}: leave that out, or give another --as")


def _choices(args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from internvl_chat.scoring.answer_files import read_choices
    from internvl_chat.scoring.multiple_choice import score_choices

    overall, by_category = score_choices(read_choices(args.answers))
    return {**asdict(overall), "categories": {name: asdict(scores) for name, scores in by_category.items()}}


def _captions(args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict, replace

    from internvl_chat.contracts import UserError
    from internvl_chat.scoring.answer_files import CAPTION_FIELDS, read_answers
    from internvl_chat.scoring.captions.caption_scores import score_captions
    from internvl_chat.scoring.significance import confidence_intervals

    lines = read_answers(args.answers, CAPTION_FIELDS)
    least, most = FILTER_CHARACTERS
    # By line: a video may be described more than once. A list may have several on a line.
    kept = {
        f"{line.source} (answer {number})": line
        for number, line in enumerate(lines, start=1)
        if not args.filter or least < len(line.texts["pred"]) < most
    }
    if not kept:
        raise UserError(f"{args.answers}: --filter leaves none of {len(lines)} answers")
    table = score_captions(
        {name: line.texts["pred"] for name, line in kept.items()},
        {name: list(line.truths) for name, line in kept.items()},
        java=not args.no_java,
        spice=args.spice,
    )
    if args.bertscore:
        from internvl_chat.scoring.captions.bert_scores import bert_score_sums

        said, truths = [kept[name].texts["pred"] for name in table.ids], [kept[name].truths for name in table.ids]
        sums = bert_score_sums(said, truths, args.bertscore, args.bertscore_layer)
        table = replace(table, sums={**table.sums, "BERTScore": sums})
    intervals = confidence_intervals(table, args.resamples, args.seed)
    return {
        "answers": len(lines),
        "scored": len(kept),
        "not_answered": sum(not line.texts["pred"].strip() for line in lines),
        "coverage": len(kept) / len(lines),
        "filter": f"{least} < characters < {most}" if args.filter else None,
        "scores": table.corpus(),
        "intervals": {name: asdict(interval) for name, interval in intervals.items()},
    }


def _judged(args: argparse.Namespace) -> dict[str, Any]:
    from tqdm import tqdm

    from internvl_chat.contracts import UserError

    if not args.judge_model or not args.out:
        raise UserError(f"--as {args.kind} asks a judge: give --judge_model, and --out for what it says")
    progress = args.out.with_suffix(".progress")
    if progress == args.out:
        raise UserError(f"--out {args.out}: is where what was judged is kept: give the result another ending, as .json")
    try:
        from internvl_chat.scoring.judge import JudgeSettings, judge_answers, report_of, score_judgements
        from internvl_chat.scoring.judge_questions import question_named
    except ImportError as error:
        raise UserError(f"--as {args.kind} asks a judge: install requirements/judge.txt ({error})") from error
    from internvl_chat.scoring.answer_files import read_answers

    question = question_named(args.kind)
    lines = read_answers(args.answers, question.fields)
    settings = JudgeSettings(
        args.judge_model,
        args.api_base,
        args.key_variable,
        args.in_flight,
        args.retries,
        args.timeout_s,
        args.prices,
    )
    with tqdm(total=len(lines), unit="answer") as bar:
        result = judge_answers(lines, question, settings, progress, bar.update)
    for place, reason in sorted(result.failed.items()):
        sys.stderr.write(f"error: {lines[place].source}: not judged: {reason}\n")
    if result.failed and not result.judged:
        raise UserError(f"{args.answers}: no answer could be judged, so there is no score; the reasons are above")
    unread = [place for place, one in sorted(result.judged.items()) if one.verdict is None]
    if unread:
        sys.stderr.write(
            f"warning: {len(unread)} of the judge's {len(result.judged)} replies cannot be read and count as wrong, "
            f"such as {result.judged[unread[0]].reply!r:.120} about {lines[unread[0]].source}; `unparsed` names all\n"
        )
    scores = score_judgements(lines, question, result, settings, args.resamples, args.seed)
    return report_of(args.kind, question, scores, settings)

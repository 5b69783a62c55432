"""Caption videos with a checkpoint: the challenge's test videos or your own records, and scores where references exist.

    python -m internvl_chat eval                             # newest checkpoint under work_dirs/
    python -m internvl_chat eval --model CKPT --meta data.json --out results/mine --sheet captions.png
    python -m internvl_chat eval --model CKPT --out results/mine --split public
    python -m internvl_chat eval --ensemble CKPT_A CKPT_B --weights 0.6 0.4
    torchrun --nproc_per_node 4 -m internvl_chat eval        # the ids split over four processes

Where the dataset holds test videos by the challenge's numbers, they are captioned; otherwise, or with --split records,
each question of the records, under its own id and with its own track: what trains can be captioned, and a record
without an answer is a question. answers.jsonl holds what was said, the form that every command reads, and run.json how
it was made; beside them lie result.json, or result_public.json, result_private.json and result.zip in the challenge's
form, and with --num_candidates above 1 candidates.json, or a file for each part (id -> captions). With --references, a
references_test.json in the dataset's root, or answers in the records, it also prints and writes BLEU, METEOR, CIDEr
and ROUGE-L: of each part, and the mean of both, which is what the challenge ranks by.

Every finished caption is kept in OUT/progress: the same command goes on where a killed one stopped. A video that
cannot be read, or of which the model says no word, is named, gets --fallback_caption or none, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from internvl_chat.choices import CONSENSUS_UTILITIES
from internvl_chat.commands.options import (
    add_json,
    add_prediction_options,
    add_sheet_options,
    add_split,
    counted,
    folder_to_write,
    save_png,
    tell,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_prediction_options(parser)
    add = parser.add_argument
    add("--out", "--save_path", type=folder_to_write, help="output folder (default: results/<run>-<checkpoint>)")
    add_split(parser)
    add("--ids", type=Path, help="caption these ids instead (a JSON list, or a captions file): writes result.json")
    add("--references", type=Path, help="captions or records to score against (default: what the dataset has)")
    add("--consensus", choices=CONSENSUS_UTILITIES, help="choose among the candidates by this (default: the first)")
    add_sheet_options(parser)
    add("--fallback_caption", help="the caption of a video that cannot be read (default: it gets none)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.inference.decoding import Decoding

    decoding = Decoding.from_arguments(args)
    if args.consensus and decoding.num_candidates == 1:
        raise UserError("--consensus chooses among candidates: give --num_candidates")
    from internvl_chat.data.records.record_questions import read_references
    from internvl_chat.inference.predict import BatchLimits, fail_unless_any
    from internvl_chat.inference.ranks import Ranks
    from internvl_chat.inference.session import open_session
    from internvl_chat.scoring.captions.caption_scores import check_worded
    from internvl_chat.scoring.predictions import ANSWERS_NAME, write_facts
    from internvl_chat.tasks.intentvc.asked import clips_to_ask
    from internvl_chat.tasks.intentvc.caption_sheet import caption_sheet

    # A file that cannot be read is told now, not after hours of captioning.
    references = read_references(args.references) if args.references else None
    session = open_session(args, Ranks.join(args.dtype))
    asked = clips_to_ask(session, args.ids, args.split)
    if args.consensus not in (None, "BLEU-4") and len(asked.asks) == 1:
        raise UserError(f"--consensus {args.consensus} weighs words by how few videos have them: take BLEU-4 for one")
    known, args.references = known_references(args, asked.references, references, session.root)
    check_worded({i: known[i] for i in asked.ids if i in known})
    # What comes next names it.
    folder = args.out = args.out or session.results_folder
    limits = BatchLimits(args.batch_tokens, args.num_workers)
    predictions = session.predict(asked.asks, decoding, limits, folder / "progress")
    fail_unless_any(predictions)
    is_whole = True
    if session.ranks.is_first:
        write_facts(folder / ANSWERS_NAME, session.facts(args.meta, decoding))
        is_whole = write(args, folder, f"intentvcnet {session.name}", asked.parts, predictions, known)
        if args.sheet:
            save_png(caption_sheet(session.views[0], asked.asks, predictions.captions, args.sheet_clips), args.sheet)
    session.ranks.leave()
    return 0 if is_whole and not predictions.failures else 1


def known_references(
    args: argparse.Namespace,
    of_records: Mapping[str, Sequence[str]],
    given: Mapping[str, Sequence[str]] | None,
    root: Path,
) -> tuple[Mapping[str, Sequence[str]], Path | None]:
    """What is scored against, and where it stands: --references, answers in the records, or the dataset's own file."""
    from internvl_chat.data.records.annotations import read_captions
    from internvl_chat.data.records.intentvc import REFERENCES_NAME

    if given:
        return given, args.references
    if of_records:
        return of_records, args.meta
    path = root / REFERENCES_NAME
    return (read_captions(path), path) if path.is_file() else ({}, None)


def write(
    args: argparse.Namespace,
    folder: Path,
    version: str,
    parts: Mapping[Any, list[str]],
    predictions: Any,
    references: Mapping[str, Sequence[str]],
) -> bool:
    """Everything that is made of the predictions, and whether all of it is as it should be.

    `parts` are the ids of each split, or of `""` where the run is no submission.
    """
    from internvl_chat.files import write_json
    from internvl_chat.scoring.predictions import ANSWERS_NAME, write_predictions
    from internvl_chat.tasks.intentvc.check_submission import validate_submission
    from internvl_chat.tasks.intentvc.submission import submitted_caption, write_results

    def of_part(values: dict[str, Any], ids: list[str]) -> dict[str, Any]:
        return {video_id: values[video_id] for video_id in ids if video_id in values}

    if args.num_candidates > 1:
        for part, ids in parts.items():
            write_json(folder / file_name("candidates", part), of_part(predictions.candidates, ids))
    chosen = chosen_first(predictions.candidates, args)
    said = {i: texts[0] if "" in parts else submitted_caption(texts) for i, texts in chosen.items()}
    silent = {i: "the model said no word" for i, text in said.items() if text is None}
    for video_id, reason in silent.items():
        sys.stderr.write(f"error: {video_id}: {reason}\n")
    failures = {**predictions.failures, **silent}
    captions = {i: text for i, text in said.items() if text is not None}
    if args.fallback_caption is not None:
        captions |= dict.fromkeys(failures, args.fallback_caption)

    write_predictions(folder / ANSWERS_NAME, {i: [text, *chosen.get(i, [])[1:]] for i, text in captions.items()})
    problems = []
    if "" in parts:
        write_json(folder / "result.json", {"version": version, "captions": of_part(captions, parts[""])})
    else:
        by_part = {part: of_part(captions, ids) for part, ids in parts.items()}
        *_, archive = write_results(folder, by_part, version)
        # What failed was named, and is told below.
        expected = {part: [i for i in ids if i not in failures or i in captions] for part, ids in parts.items()}
        problems = [*validate_submission(archive, expected), *missing_of_challenge(parts)]
    earlier = f", {predictions.num_kept} of them by an earlier run" if predictions.num_kept else ""
    told = [f"{counted(len(captions), 'caption')} written to {folder}{earlier}"]
    for problem in problems:
        sys.stderr.write(f"warning: {problem}\n")
    # It would pass for the scores of what lies beside it now.
    (folder / "scores.json").unlink(missing_ok=True)
    if stale := left_from_before(folder, parts, args.num_candidates):
        sys.stderr.write(f"warning: {folder} holds files of an earlier run: {', '.join(stale)}\n")
    if failures:
        write_json(folder / "failures.json", failures)
        given = "with the fallback caption" if args.fallback_caption is not None else "without a caption"
        told.append(f"{counted(len(failures), 'video')} {given}: see {folder / 'failures.json'}")
    else:
        (folder / "failures.json").unlink(missing_ok=True)
    scores = None
    if references:
        # Who says nothing has said something wrong; a video that cannot be read is nobody's fault.
        scores = write_scores(folder, {**dict.fromkeys(silent, ""), **captions}, references, parts)
    told += [json.dumps(scores)] if scores else []
    tell(args, "\n".join(told), out=folder, captions=len(captions), failures=failures, scores=scores)
    return not problems and not failures


def file_name(kind: str, part: str) -> str:
    """What the results, or the candidates, of a part are written to."""
    return f"{kind}_{part}.json" if part else f"{kind}.json"


def left_from_before(folder: Path, parts: Iterable[str], num_candidates: int) -> list[str]:
    """Files of results in the folder that a run of these parts does not write."""
    from internvl_chat.tasks.intentvc.submission import ARCHIVE_NAME

    kinds = ("result", "candidates")
    written = {file_name(kind, part) for kind in kinds[: min(num_candidates, 2)] for part in parts}
    found = {path.name for kind in kinds for path in folder.glob(f"{kind}*.json")}
    if "" in parts and (folder / ARCHIVE_NAME).is_file():
        found.add(ARCHIVE_NAME)
    return sorted(found - written)


def chosen_first(candidates: dict[str, list[str]], args: argparse.Namespace) -> dict[str, list[str]]:
    """The candidates with those that --consensus chose in front."""
    from internvl_chat.scoring.captions.ptb import tokenize
    from internvl_chat.scoring.consensus import choose_by_consensus

    worded = {i: texts for i, texts in candidates.items() if any(tokenize(text) for text in texts)}
    # Among the candidates of a single video CIDEr has nothing to go by.
    if not args.consensus or (len(worded) == 1 and args.consensus != "BLEU-4"):
        return candidates
    choices = choose_by_consensus(worded, args.consensus)

    def in_front(texts: list[str], index: int) -> list[str]:
        return [texts[index], *texts[:index], *texts[index + 1 :]]

    return {i: in_front(texts, choices[i].index) if i in choices else texts for i, texts in candidates.items()}


def missing_of_challenge(parts: Mapping[Any, list[str]]) -> list[str]:
    """What a submission of some of the challenge's videos lacks to be whole."""
    from internvl_chat.tasks.intentvc.submission import challenge_ids

    said = []
    for split, ids in parts.items():
        asked = challenge_ids(split)
        missing = [video_id for video_id in asked if video_id not in set(ids)]
        if missing and len(missing) < len(asked):
            said.append(
                f"{len(missing)} of the challenge's {len(asked)} {split} videos are not in the dataset, such as "
                f"{missing[0]}: its server takes whole submissions only"
            )
    return said


def write_scores(
    folder: Path,
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    parts: Mapping[Any, list[str]],
) -> dict[str, float] | None:
    """Write `scores.json`, as the challenge does, each part by itself and the mean of both.

    Returns:
        What is printed of it; None where no caption has references.
    """
    from internvl_chat.files import write_json
    from internvl_chat.scoring.captions.caption_scores import caption_scores
    from internvl_chat.tasks.intentvc.ranking import final_scores

    wanted = {part: [i for i in ids if i in references] for part, ids in parts.items()}
    scored = {part: {i: captions[i] for i in ids if i in captions} for part, ids in wanted.items()}
    by_part = {part or "all": caption_scores(said, references) for part, said in scored.items() if said}
    if not by_part:
        sys.stderr.write(f"warning: no caption has references, such as {next(iter(captions))}: nothing is scored\n")
        return None
    counts = {"captions": sum(map(len, scored.values())), "references": sum(map(len, wanted.values()))}
    scores = final_scores(by_part)
    write_json(folder / "scores.json", {**counts, "scores": scores, "parts": by_part})
    if counts["captions"] < counts["references"]:
        sys.stderr.write(f"warning: {counts['captions']} of {counts['references']} captions are scored\n")
    return {name: round(value, 4) for name, value in scores.items()}

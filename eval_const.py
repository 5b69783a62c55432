"""Caption the test videos with a checkpoint: submission files, and scores where references exist.

    python eval_const.py                                     # newest checkpoint under work_dirs/
    python eval_const.py --checkpoint_path CKPT --save_path results/mine --split public
    python eval_const.py --ensemble CKPT_A CKPT_B --weights 0.6 0.4
    torchrun --nproc_per_node 4 eval_const.py                # the ids split over four processes

Writes result_public.json, result_private.json and result.zip in the challenge's form, and with --num_candidates above 1
candidates_public.json and candidates_private.json (id -> captions). With --references (or a references_test.json in the
dataset's root) it also prints and writes BLEU, METEOR, CIDEr and ROUGE-L.

Every finished caption is kept in SAVE_PATH/progress: the same command goes on where a killed one stopped. A video that
cannot be read is named, gets --fallback_caption or none, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from internvl_chat.commands.options import CONSENSUS_UTILITIES, add_prediction_options


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_prediction_options(parser)
    add = parser.add_argument
    add("--save_path", type=Path, help="output folder (default: results/<run>-<checkpoint>)")
    add("--split", choices=("public", "private", "both"), default="both", help="test split (default: %(default)s)")
    add("--ids", type=Path, help="caption these ids instead (a JSON list, or a captions file): writes result.json")
    add("--references", type=Path, help="captions to score against (default: ROOT/references_test.json, if there)")
    add("--consensus", choices=CONSENSUS_UTILITIES, help="choose among the candidates by this (default: the first)")
    add("--fallback_caption", help="the caption of a video that cannot be read (default: it gets none)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.evaluation.decoding import Decoding

    decoding = Decoding.from_arguments(args)
    if args.consensus and decoding.num_candidates == 1:
        raise UserError("--consensus chooses among candidates: give --num_candidates")
    from internvl_chat.data.annotations import read_captions
    from internvl_chat.evaluation.predict import Feeding, fail_unless_any
    from internvl_chat.evaluation.ranks import Ranks
    from internvl_chat.evaluation.session import open_session
    from internvl_chat.evaluation.submission import SPLITS, ids_of_split, read_ids

    if args.references:
        # A file that cannot be read is told now, not after hours of captioning.
        read_captions(args.references)
    session = open_session(args, Ranks.join())
    root = session.entry.root
    if args.ids:
        parts: dict[Any, list[str]] = {"": read_ids(args.ids)}
    else:
        parts = {split: ids_of_split(root, split) for split in SPLITS if args.split in (split, "both")}
    asks = [session.ask(video_id) for ids in parts.values() for video_id in ids]
    folder = args.save_path or session.results_folder
    predictions = session.predict(asks, decoding, Feeding(args.batch_tokens, args.num_workers), folder / "progress")
    fail_unless_any(predictions)
    if session.ranks.is_first:
        write(args, folder, f"intentvcnet {session.name}", parts, predictions, root)
    session.ranks.leave()
    return 1 if predictions.failures else 0


def write(
    args: argparse.Namespace, folder: Path, version: str, parts: dict[Any, list[str]], predictions: Any, root: Path
) -> None:
    """Everything that is made of the predictions; `parts` are the ids of each split, or of `""` for chosen ids."""
    from internvl_chat.data.annotations import read_captions, write_json
    from internvl_chat.evaluation.consensus import choose_by_consensus
    from internvl_chat.evaluation.ptb import tokenize
    from internvl_chat.evaluation.scores import caption_scores
    from internvl_chat.evaluation.submission import write_results

    candidates, captions = predictions.candidates, predictions.captions
    if args.consensus:
        # A video whose candidates hold no word keeps its first.
        worded = {i: texts for i, texts in candidates.items() if any(tokenize(text) for text in texts)}
        captions = {**captions, **{i: c.caption for i, c in choose_by_consensus(worded, args.consensus).items()}}
    if args.fallback_caption is not None:
        captions |= dict.fromkeys(predictions.failures, args.fallback_caption)

    def of_part(values: dict[str, Any], ids: list[str]) -> dict[str, Any]:
        return {video_id: values[video_id] for video_id in ids if video_id in values}

    if args.num_candidates > 1:
        for part, ids in parts.items():
            write_json(folder / f"candidates{part and '_' + part}.json", of_part(candidates, ids))
    if args.ids:
        write_json(folder / "result.json", {"version": version, "captions": of_part(captions, parts[""])})
    else:
        write_results(folder, {part: of_part(captions, ids) for part, ids in parts.items()}, version)
    sys.stdout.write(f"{len(captions)} captions written to {folder}\n")
    if predictions.failures:
        write_json(folder / "failures.json", predictions.failures)
        given = "got the fallback caption" if args.fallback_caption is not None else "have no caption"
        sys.stdout.write(f"{len(predictions.failures)} videos {given}: see {folder / 'failures.json'}\n")
    else:
        (folder / "failures.json").unlink(missing_ok=True)

    references = args.references or root / "references_test.json"
    if args.references or references.is_file():
        scores = caption_scores(captions, read_captions(references))
        write_json(folder / "scores.json", scores)
        sys.stdout.write(json.dumps({name: round(value, 4) for name, value in scores.items()}) + "\n")


def main() -> None:
    args = parse_arguments()
    from internvl_chat.contracts import UserError

    try:
        code = run(args)
    except UserError as error:
        sys.exit(f"error: {error}")
    sys.exit(code)


if __name__ == "__main__":
    main()

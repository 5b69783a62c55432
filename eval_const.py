"""Caption the test videos with a checkpoint: submission files, and scores where references exist.

    python eval_const.py                                     # newest checkpoint under work_dirs/
    python eval_const.py --checkpoint_path CKPT --save_path results/mine --split public

Writes result_public.json, result_private.json and result.zip in the challenge's form. With --references (or a
references_test.json in the dataset's root) it also prints and writes BLEU, METEOR, CIDEr and ROUGE-L.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from internvl_chat.commands.options import add_prediction_options


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_prediction_options(parser)
    add = parser.add_argument
    add("--save_path", type=Path, help="output folder (default: results/<date-time>)")
    add("--split", choices=("public", "private", "both"), default="both", help="test split (default: %(default)s)")
    add("--ids", type=Path, help="caption these ids instead (a JSON list, or a captions file): writes result.json")
    add("--references", type=Path, help="captions to score against (default: ROOT/references_test.json, if there)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from internvl_chat.contracts import UserError
    from internvl_chat.data.annotations import read_captions, write_json
    from internvl_chat.evaluation.predict import GenerationSettings, generate_captions, question_sample
    from internvl_chat.evaluation.scores import caption_scores
    from internvl_chat.evaluation.session import open_session
    from internvl_chat.evaluation.submission import SPLITS, ids_of_split, read_ids, write_results

    session = open_session(args)
    root = session.entry.root
    if args.ids:
        parts: dict[Any, list[str]] = {"": read_ids(args.ids)}
    else:
        parts = {split: ids_of_split(root, split) for split in SPLITS if args.split in (split, "both")}
    samples = [question_sample(session.entry, video_id, session.ask) for ids in parts.values() for video_id in ids]
    missing = [str(s.video_path) for s in samples if s.video_path and not s.video_path.exists()]
    if missing:
        raise UserError(f"{len(missing)} of {len(samples)} test videos are missing, such as {missing[0]}")

    settings = GenerationSettings.from_arguments(args)
    texts = generate_captions(session.model, session.tokenizer, session.encoder, samples, settings)
    progress = tqdm(texts, total=len(samples), unit="video", disable=None)
    captions = {sample.id: text for sample, text in zip(samples, progress, strict=True)}

    save_path = args.save_path or Path("results") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    version = f"intentvcnet {session.checkpoint.name}"
    if args.ids:
        write_json(save_path / "result.json", {"version": version, "captions": captions})
    else:
        write_results(save_path, {p: {i: captions[i] for i in ids} for p, ids in parts.items()}, version)
    sys.stdout.write(f"{len(captions)} captions written to {save_path}\n")

    references = args.references or root / "references_test.json"
    if args.references or references.is_file():
        scores = caption_scores(captions, read_captions(references))
        write_json(save_path / "scores.json", scores)
        sys.stdout.write(json.dumps({name: round(value, 4) for name, value in scores.items()}) + "\n")


def main() -> None:
    args = parse_arguments()
    from internvl_chat.contracts import UserError

    try:
        run(args)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

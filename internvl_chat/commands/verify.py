"""Prove that a checkpoint computes what it should.

With --case: a folder with recorded results of the original implementation (checkpoint/ and case.safetensors, or
tokenizer/ and text_case.json, or text_case.json and pictures of texts) is recomputed in fp32; the largest differences
are printed, as shares of the largest value where that is above 1, and the exit code is 0 when they are at most what the
family states (1e-5; 5e-5 for CogVLM2-Video), greedy tokens equal, ids and labels exact, and lines of texts the same.

With --model: base + adapter, the merged model and its export to the original layout are asked the same
question in fp32 and in bf16; the exit code is 0 when their greedy tokens are equal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_chat.commands.options import add_base, add_json, tell

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from internvl_chat.vision import Vision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--case", type=Path, help="folder of recorded results")
    what.add_argument("--model", "--checkpoint_path", type=Path, help="training checkpoint, or a complete model")
    add_base(parser)
    parser.add_argument("--num_frames", type=int, default=4, help="frames of the question (default: %(default)s)")
    parser.add_argument("--max_new_tokens", type=int, default=16, help="tokens compared (default: %(default)s)")
    add_json(parser)


@dataclass(frozen=True)
class Check:
    """One thing that was held against another: whether it holds, in words, and as what --json prints."""

    holds: bool
    said: str
    result: Mapping[str, Any]


def run(args: argparse.Namespace) -> int:
    checks = []
    for check in _checks_of_case(args.case) if args.case else _checks_of_checkpoint(args):
        checks.append(check)
        if not args.json:
            sys.stdout.write(f"{check.said}\n")
    holds = all(check.holds for check in checks)
    results = [{"holds": check.holds, **check.result} for check in checks]
    tell(args, "holds" if holds else "DOES NOT HOLD", holds=holds, checks=results)
    return 0 if holds else 1


def _checks_of_case(folder: Path) -> Iterator[Check]:
    from internvl_chat.contracts import UserError
    from internvl_chat.files import read_json
    from internvl_chat.model.parity import CASE_NAME, check_case

    has_results, has_texts = (folder / CASE_NAME).is_file(), (folder / "text_case.json").is_file()
    if not (has_results or has_texts):
        raise UserError(f"{folder}: is no case: it holds neither {CASE_NAME} nor text_case.json")
    if has_results:
        differences = check_case(folder)
        said = [f"{name}: largest difference {value:.3g}" for name, value in differences.largest.items()]
        if differences.greedy_equal is not None:
            said.append(f"greedy ids: {'equal' if differences.greedy_equal else 'DIFFERENT'}")
        result = {"largest_differences": dict(differences.largest), "greedy_equal": differences.greedy_equal}
        yield Check(differences.hold(), "\n".join(said), {"of": CASE_NAME, **result})
    if has_texts:
        path = folder / "text_case.json"
        case = read_json(path)
        if not isinstance(case, dict) or not {"conv_style", "font"} & case.keys():
            raise UserError(f"{path}: is no case: expected 'conv_style' (conversations) or 'font' (texts as pictures)")
        yield from _checks_of_texts(folder, case) if "conv_style" in case else _checks_of_pages(path, case)


def _checks_of_pages(path: Path, case: Mapping[str, Any]) -> Iterator[Check]:
    from internvl_chat.data.synthetic.recorded_pages import check_pages

    for name, fault in check_pages(case, path):
        yield Check(
            not fault, f"{name}: pages {f'DIFFERENT: {fault}' if fault else 'equal'}", {"of": name, "fault": fault}
        )


def _checks_of_texts(folder: Path, case: Mapping[str, Any]) -> Iterator[Check]:
    from internvl_chat.contracts import Turn
    from internvl_chat.data.media.tiling import WHOLE, View
    from internvl_chat.data.prompts.prompt_config import PromptConfig
    from internvl_chat.data.prompts.tokenizer import load_tokenizer
    from internvl_chat.families import family_of_style

    family = family_of_style(case["conv_style"])
    # A tile a context token: what a picture shows is not asked here.
    config = PromptConfig.of(case["conv_style"], 1, 1)
    tokenizer = load_tokenizer(folder / "tokenizer", family)
    for record in case["records"]:
        turns = [Turn(turn["from"], turn["value"]) for turn in record["conversations"]]
        views = [[View(number, WHOLE)] * count for number, count in enumerate(record["num_image_tokens"])]
        encoded = family.data.encode(turns, tokenizer, config, views)
        for part, got, expected in (
            ("input_ids", encoded.input_ids, record["input_ids"]),
            ("labels", encoded.labels, record["labels"]),
        ):
            pairs = zip(got, expected, strict=False)
            first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(got), len(expected)))
            same, name = got == expected, record.get("name", "record")
            verdict = "equal" if same else f"DIFFERENT from position {first} ({len(got)} for {len(expected)})"
            result = {"of": name, "part": part, "differs_from": None if same else first}
            yield Check(same, f"{name}: {part} {verdict}", result)


def _checks_of_checkpoint(args: argparse.Namespace) -> Iterator[Check]:
    from tempfile import TemporaryDirectory

    import torch

    from internvl_chat.families import family_in
    from internvl_chat.model.checkpoint import load_captioner
    from internvl_chat.model.export import convert_checkpoint, merge_checkpoint
    from internvl_chat.model.parity import answer

    for dtype in (torch.float32, torch.bfloat16):
        with TemporaryDirectory(prefix="verify-") as scratch:
            merged, exported = Path(scratch, "merged"), Path(scratch, "exported")
            merge_checkpoint(args.model, merged, base_path=args.base, dtype=dtype)
            folders = {"merged": merged}
            if family_in(merged).original.HAS_ORIGINAL_LAYOUT:
                convert_checkpoint(merged, exported, "original")
                folders["exported"] = exported
            model = load_captioner(args.model, base_path=args.base, dtype=dtype)
            ids, vision = _question(model, args.model, args.num_frames)
            reference = answer(model, ids, vision, args.max_new_tokens)
            del model
            for name, folder in folders.items():
                other = answer(load_captioner(folder, dtype=dtype), ids, vision, args.max_new_tokens)
                differences = reference.compare(other)
                same, in_dtype = differences.greedy_equal is True, str(dtype).removeprefix("torch.")
                said = (
                    f"{in_dtype}: base + adapter and {name}: greedy tokens {'equal' if same else 'DIFFERENT'}, "
                    f"max |dlogits| {differences.largest['logits']:.3g}"
                )
                result = {"of": name, "dtype": in_dtype, "logits_difference": differences.largest["logits"]}
                yield Check(same, said, result)


def _question(model: PreTrainedModel, folder: Path, num_frames: int) -> tuple[torch.Tensor, Vision]:
    """IntentVCNet's question about frames of noise: ids [1, L] and tensors; plain ids where there is no tokenizer."""
    import numpy as np
    import torch

    from internvl_chat.contracts import Turn
    from internvl_chat.data.controls.base import Scene
    from internvl_chat.data.controls.coordinates import Coordinates
    from internvl_chat.data.prompts.sample_pictures import SamplePictures
    from internvl_chat.data.prompts.tokenizer import has_tokenizer, load_tokenizer
    from internvl_chat.data.prompts.wordings import question_turn, wording_named
    from internvl_chat.families import family_of
    from internvl_chat.inference.handle import prompt_config_of

    config = prompt_config_of(model.config)
    family, side_px = family_of(model.config), config.force_image_size
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (num_frames, side_px, side_px, 3), dtype=np.uint8)
    boxes = rng.integers(0, 500, (num_frames, 4)) + np.array([0, 0, 501, 501])
    views = family.data.views([(side_px, side_px)] * num_frames, config, 1, is_video=True)
    vision = family.data.pixels(SamplePictures(lambda: frames), [view for one in views for view in one], config)
    vision["boxes"] = torch.from_numpy(boxes)
    if has_tokenizer(folder):
        question = question_turn(f"<video>\n{wording_named('coordinates').asks('object')}")
        text = Coordinates().words(question, Scene((("object", boxes),), "Frame-1"))
        turns = [Turn("human", family.data.expand_video(text, num_frames, config, ()))]
        ids = family.data.encode(turns, load_tokenizer(folder, family), config, views).input_ids
    else:
        words = rng.integers(0, model.config.text_config.vocab_size, 12)
        words = words[words != model.config.image_token_id]
        ids = [model.config.image_token_id] * (config.tokens_per_frame * num_frames) + words.tolist()
    return torch.tensor([ids]), vision

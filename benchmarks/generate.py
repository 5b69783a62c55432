"""Captions a second: prompts read once and continued together, against one video and one candidate at a time.

    python -m benchmarks.generate                 # W1, 64 clips, 8 candidates each: about half an hour on two CPU cores
    python -m benchmarks.generate --clips 8

Both draw 8 candidates of 20 tokens for each clip from the same model of random weights. One at a time means the native
`generate`, the prompt with its frames computed anew for each candidate. Videos are not decoded by either. Greedy
captions of both are compared as well. Prints a Markdown table; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.workloads import W1, Workload, build_model
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.ensemble import Ensemble
from internvl_chat.inference.generation import Captioners
from internvl_chat.inference.requests import EncodedClip, ViewedClip, ViewedPrompt
from internvl_chat.model.families.internvl import IntentVCNetForConditionalGeneration
from internvl_chat.vision import moved

CANDIDATES, CAPTION_TOKENS = 8, 20
# No token ends a caption, so that all have the same length.
NEVER = 151_673


class NumbersAsText:
    """What is needed of a tokenizer: ids as they are."""

    pad_token_id = 0

    def batch_decode(self, ids: torch.Tensor, **_: Any) -> list[str]:
        return [" ".join(map(str, row)) for row in ids.tolist()]


def make_clips(workload: Workload, count: int) -> list[EncodedClip]:
    """Random frames, tracks and prompts; like real coordinate lists, prompts differ by a few tokens in length."""
    rng = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    clips = []
    for number in range(count):
        places = [workload.image_token_id] * (workload.frames * workload.tokens_per_frame)
        words = rng.integers(10, workload.num_words, workload.text_tokens - int(rng.integers(0, 16))).tolist()
        corners = rng.integers(0, 400, (workload.frames, 2))
        boxes = torch.from_numpy(np.concatenate([corners, corners + 300], axis=1))
        prompt = ViewedPrompt([*words[:20], *places, *words[20:]], {"boxes": boxes})
        pixels = torch.randn(workload.frames, 3, workload.tile_px, workload.tile_px, generator=generator)
        clips.append(EncodedClip((f"clip-{number}",), (ViewedClip({"pixel_values": pixels}, (prompt,)),)))
    return clips


@torch.inference_mode()
def one_at_a_time(model: IntentVCNetForConditionalGeneration, clip: EncodedClip, **how: Any) -> list[str]:
    """The native path: one candidate of one clip."""
    (view,) = clip.views
    ids = torch.tensor([view.prompts[0].input_ids], device=model.device)
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        vision=moved({**view.vision, **view.prompts[0].tensors}, model.device, model.dtype),
        max_new_tokens=CAPTION_TOKENS,
        pad_token_id=0,
        eos_token_id=NEVER,
        **how,
    )
    return NumbersAsText().batch_decode(out[:, ids.shape[1] :])


def together(
    model: IntentVCNetForConditionalGeneration, clips: Sequence[EncodedClip], decoding: Decoding, batch_tokens: int
) -> list[list[str]]:
    """The way of eval_const.py: the candidates of each clip."""
    tokenizer: Any = NumbersAsText()
    captioners = Captioners(Ensemble([model]), [0], tokenizer, [NEVER], decoding)
    longest = max(len(clip.views[0].prompts[0].input_ids) for clip in clips)
    size = max(1, batch_tokens // (longest + decoding.rows * CAPTION_TOKENS))
    found = []
    for first in range(0, len(clips), size):
        found += captioners(clips[first : first + size])
    return found


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, and of processor time: the fairer measure on a busy machine without a GPU."""

    clock_s: float
    processor_s: float


def cost_of(work: Callable[[], Any]) -> tuple[Any, Cost]:
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, Cost(time.perf_counter() - clock, time.process_time() - processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--batch_tokens", type=int, default=65536, help="as for eval_const.py")
    args = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)
    # LoRA is folded in: what is measured is the model alone.
    built: Any = build_model(W1, device, dtype)
    model = built.merge_and_unload().eval()
    clips = make_clips(W1, args.clips)
    sampling = Decoding(max_new_tokens=CAPTION_TOKENS, temperature=1.0, num_candidates=CANDIDATES)

    together(model, clips[:1], sampling, args.batch_tokens)
    one_at_a_time(model, clips[0], do_sample=False)
    drawn, fast = cost_of(lambda: together(model, clips, sampling, args.batch_tokens))
    assert all(len(texts) == CANDIDATES for texts in drawn)
    _, slow = cost_of(
        lambda: [
            one_at_a_time(model, clip, do_sample=True, temperature=1.0, top_k=0)
            for clip in clips
            for _ in range(CANDIDATES)
        ]
    )
    greedy = together(model, clips, Decoding(max_new_tokens=CAPTION_TOKENS), args.batch_tokens)
    alone = [one_at_a_time(model, clip, do_sample=False) for clip in clips]
    same = sum(a == b for a, b in zip(greedy, alone, strict=True))

    captions = args.clips * CANDIDATES
    sys.stdout.write("| way | seconds | processor seconds | captions a second |\n|---|---|---|---|\n")
    for name, cost in (("one at a time, prompt computed anew", slow), ("prompts read once, together", fast)):
        rate = captions / cost.clock_s
        sys.stdout.write(f"| {name} | {cost.clock_s:.0f} | {cost.processor_s:.0f} | {rate:.2f} |\n")
    sys.stdout.write(f"\n{args.clips} clips x {CANDIDATES} candidates of {CAPTION_TOKENS} tokens, {device} {dtype}\n")
    result = {
        "ratio": round(slow.clock_s / fast.clock_s, 2),
        "processor_ratio": round(slow.processor_s / fast.processor_s, 2),
        "same_greedy_captions": same,
        "clips": args.clips,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

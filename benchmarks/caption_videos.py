"""Videos a second: caption-videos' way against the published one, which takes one video at a time.

    python -m benchmarks.caption_videos

64 videos of 2 to 24 seconds, a frame a second of each, get captions of 64 tokens by a CogVLM2-Video of random weights.
One at a time means: decode, look at the frames, read the prompt, generate, as CogVLM2-Caption's own script does. Models
are read before either begins. Prints where the time goes, in processor seconds of one process (decoding of videos among
it), then the clock with videos decoded ahead by worker processes; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import nn

from internvl_chat.data.prompts.frame_choice import FrameChoice
from internvl_chat.data.records.video_lists import list_videos
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.ensemble import Ensemble
from internvl_chat.inference.generation import Captioners
from internvl_chat.inference.handle import open_model
from internvl_chat.inference.predict import BatchLimits, predict
from internvl_chat.inference.requests import Ask, Viewpoint, encode_clip
from internvl_chat.inference.video_captions.clips_shown import Request, clips_of
from internvl_chat.model.families.cogvlm2_video import CogVLM2VideoForConditionalGeneration
from internvl_chat.steps import REPOSITORY

BASE = REPOSITORY / "quickstart" / "video_base"
CAPTION_TOKENS, RATE = 64, 8
# No token ends a caption, so that all have the same length.
NEVER = 1_000_000
STAGES = ("decode", "vision", "reading", "decoding")


def write_videos(folder: Path, count: int) -> None:
    """Videos of 2 to 24 seconds, 320 x 240: a square that moves over a texture."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    texture = np.repeat(np.repeat(rng.integers(0, 200, (30, 40, 3), np.uint8), 8, axis=0), 8, axis=1)
    for number in range(count):
        with av.open(str(folder / f"{number:03d}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(RATE), options={"preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            for t in range((2 + number * 23 // count) * RATE - RATE + 1):
                picture = np.roll(texture, (number, t), (0, 1))
                picture[100:140, (20 + 3 * t + number) % 280 :][:, :40] = (240, 30, 4 * number % 256)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())


class Stopwatch:
    """Processor seconds by stage, told by the modules that a stage passes through."""

    def __init__(self, model: Any) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._began: dict[nn.Module, float] = {}
        for module in (model.model.vision_tower, model.model.multi_modal_projector, model.model.language_model):
            module.register_forward_pre_hook(self._enter)
            module.register_forward_hook(self._leave, with_kwargs=True)
        self._language_model = model.model.language_model

    def _enter(self, module: nn.Module, _: Any) -> None:
        self._began[module] = time.process_time()

    def _leave(self, module: nn.Module, args: Any, kwargs: dict[str, Any], _: Any) -> None:
        given = (*args, kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
        length = next((tensor.shape[1] for tensor in given if isinstance(tensor, torch.Tensor)), 0)
        reads = "reading" if length > 1 else "decoding"
        self.seconds[reads if module is self._language_model else "vision"] += time.process_time() - self._began.pop(
            module
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.seconds[name] += time.process_time() - began


def one_at_a_time(model: Any, ask: Ask, view: Viewpoint, watch: Stopwatch) -> str:
    """The published way: a video is decoded, and then captioned by `generate`."""
    with watch.stage("decode"):
        clip: Any = encode_clip((ask,), [view])
    (shown,) = clip.views
    ids = torch.tensor([shown.prompts[0].input_ids])
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            vision=shown.vision,
            max_new_tokens=CAPTION_TOKENS,
            do_sample=False,
            eos_token_id=NEVER,
            pad_token_id=view.encoder.tokenizer.pad_token_id,
        )
    return view.encoder.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()


def together(model: Any, asks: Sequence[Ask], view: Viewpoint, folder: Path, limits: BatchLimits) -> dict[str, str]:
    """The way of caption-videos, every caption on the disk."""
    decoding = Decoding(max_new_tokens=CAPTION_TOKENS)
    captioners = Captioners(Ensemble([model]), [0], view.encoder.tokenizer, [NEVER], decoding)
    found = predict(asks, [view], lambda: captioners, decoding=decoding, identity=[], folder=folder, limits=limits)
    assert not found.failures
    return {ask_id: text.strip() for ask_id, text in found.captions.items()}


def cost_of(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, seconds on the clock, and of this process's processor time."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=64)
    parser.add_argument("--num_workers", type=int, help="that decode ahead (default: caption-videos', one a core)")
    args = parser.parse_args()
    handle = open_model(BASE)
    torch.manual_seed(0)
    model: Any = CogVLM2VideoForConditionalGeneration(handle.load().config).eval()
    watch = Stopwatch(model)
    view = Viewpoint(handle.encoder, 24)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_videos(folder / "videos", args.videos)
        request = Request("Please describe this video in detail.", FrameChoice.named("chat"))
        clips, failures = clips_of(list_videos([folder / "videos"]), request)
        assert not failures
        asks = [clip.ask for clip in clips]
        limits = BatchLimits(num_workers=0)
        one_at_a_time(model, asks[0], view, watch)
        together(model, asks[:2], view, folder / "warm", limits)

        rows = []
        watch.seconds.clear()
        alone, slow_s, slow_processor_s = cost_of(lambda: [one_at_a_time(model, ask, view, watch) for ask in asks])
        rows.append(("one at a time", dict(watch.seconds), slow_processor_s))
        # In one process, decoding is all that is done outside the model's modules but for choosing tokens.
        watch.seconds.clear()
        with watch.stage("decode"):
            for ask in asks:
                encode_clip((ask,), [view])
        decode_s = watch.seconds["decode"]
        watch.seconds.clear()
        found, _, fast_processor_s = cost_of(lambda: together(model, asks, view, folder / "out", limits))
        rows.append(("together", {**watch.seconds, "decode": decode_s}, fast_processor_s))
        ahead = replace(limits, num_workers=args.num_workers)
        again, fast_s, _ = cost_of(lambda: together(model, asks, view, folder / "ahead", ahead))

    sys.stdout.write(f"| processor seconds | {' | '.join(STAGES)} | rest | all |\n{'|---' * (len(STAGES) + 3)}|\n")
    for name, seconds, total in rows:
        cells = [seconds.get(stage, 0.0) for stage in STAGES]
        shown = " | ".join(f"{cell:.2f}" for cell in (*cells, total - sum(cells), total))
        sys.stdout.write(f"| {name} | {shown} |\n")
    shown_frames = sorted(len(clip.frames) for clip in clips)
    sys.stdout.write(f"\n{len(asks)} videos of {shown_frames[0]} to {shown_frames[-1]} frames\n")
    result = {
        "ratio": round(slow_s / fast_s, 2),
        "processor_ratio": round(slow_processor_s / fast_processor_s, 2),
        "same_captions": alone == [found[ask.id] for ask in asks] == [again[ask.id] for ask in asks],
        "videos_per_second": round(len(asks) / fast_s, 2),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

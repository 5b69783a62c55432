"""Where a direction is lost on its way from a box to the caption, in a model that was trained with region tokens alone.

    python -m quickstart.region_proof --rows region_tokens --seeds 1
    python -m quickstart.region_probe

Colour, shape and direction of the object are read by a small network, trained on training clips and asked about
held-out ones: from the boxes of the frames, from the region tokens as they enter the language model, and from its
states at the place where the answer begins. What can be read before and not there is lost in the language model.
"said" is its caption; of wrong directions, some are those of the clip's other object. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from internvl_chat.constants import BOX_SCALE
from internvl_chat.contracts import Sample
from internvl_chat.data.records.annotations import load_meta
from internvl_chat.data.synthetic.shapes import COLOURS, MOTIONS, SHAPES
from internvl_chat.files import read_json
from internvl_chat.inference.handle import open_model
from internvl_chat.inference.requests import Viewpoint
from internvl_chat.inference.session import PredictionSession

WORDS: dict[str, tuple[str, ...]] = {"colour": tuple(COLOURS), "shape": SHAPES, "direction": tuple(MOTIONS)}
NUM_FRAMES, MAX_NEW_TOKENS = 6, 20
HIDDEN, STEPS = 128, 300


def facts_of(caption: str) -> dict[str, str]:
    """What a caption says; a caption without a direction says that the object is still."""
    said = caption.split()
    return {kind: next((word for word in words if word in said), "still") for kind, words in WORDS.items()}


@torch.inference_mode()
def looked_into(model: Any, view: Viewpoint, sample: Sample, speaks: bool) -> tuple[dict[str, torch.Tensor], str]:
    """Features of the prompt by where they were taken, and, where asked for, the caption that follows."""
    features = view.encoder(sample, view.plan(sample).frame_indices)
    ids, vision = features["input_ids"][None], features["vision"]
    embeds, _ = model.model.embed_prompt(ids, vision)
    slots = ids[0] == model.config.region_token_id
    states = model.model.language_model(inputs_embeds=embeds, output_hidden_states=True).hidden_states
    taken = {"boxes": vision["region_boxes"].flatten() / BOX_SCALE, "region tokens": embeds[0, slots].flatten()}
    taken |= {f"answer's place, layer {layer}": state[0, -1] for layer, state in enumerate(states) if layer}
    if not speaks:
        return taken, ""
    mask = torch.ones_like(ids)
    said = model.generate(ids, vision=vision, attention_mask=mask, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    return taken, str(view.encoder.tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True))


def readable(shown: torch.Tensor, wanted: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Classes of `asked` [M, D] by a network of one hidden layer, trained on `shown` [N, D] and its classes."""
    torch.manual_seed(0)
    mean, std = shown.mean(0), shown.std(0).clamp(min=1e-6)
    head = nn.Linear(HIDDEN, int(wanted.max()) + 1)
    reader = nn.Sequential(nn.Linear(shown.shape[1], HIDDEN), nn.GELU(), nn.Dropout(0.2), head)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=3e-3, weight_decay=1.0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(reader((shown - mean) / std), wanted).backward()
        optimizer.step()
    return reader.eval()((asked - mean) / std).argmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    proof = Path("work_dirs/region_proof")
    parser.add_argument("--model", type=Path, default=proof / "region_tokens-1", help="(default: %(default)s)")
    parser.add_argument("--meta", type=Path, default=proof / "shapes.json", help="(default: %(default)s)")
    parser.add_argument("--train_clips", type=int, default=600, help="objects to fit to (default: %(default)s)")
    args = parser.parse_args()

    handle = open_model(args.model)
    entries = tuple(load_meta(args.meta))
    session = replace(PredictionSession.alone(handle, NUM_FRAMES), entries=entries)
    model, view, root = handle.load(), session.views[0], session.root
    truth = {
        "train": read_json(root / "train.json")["captions"],
        "test": read_json(root / "references_test.json")["captions"],
    }
    every = sorted(truth["train"])
    ids = {"train": every[:: max(1, len(every) // args.train_clips)], "test": sorted(truth["test"])}
    seen: dict[str, list[dict[str, torch.Tensor]]] = {}
    said: list[str] = []
    for part in ids:
        looked = [looked_into(model, view, ask.samples[0], part == "test") for ask in session.asks(ids[part])]
        seen[part], said = [taken for taken, _ in looked], [caption for _, caption in looked]
    facts = {part: [facts_of(truth[part][i][0]) for i in ids[part]] for part in ids}
    count = len(ids["test"])
    result: dict[str, dict[str, float]] = {}
    for place in seen["test"][0]:
        result[place] = {}
        for kind, words in WORDS.items():
            wanted = {part: torch.tensor([words.index(fact[kind]) for fact in facts[part]]) for part in facts}
            shown, asked = (torch.stack([taken[place] for taken in seen[part]]).float() for part in ("train", "test"))
            right = readable(shown, wanted["train"], asked) == wanted["test"]
            result[place][kind] = round(right.float().mean().item(), 3)
    answers = [facts_of(caption) for caption in said]
    result["said"] = {
        kind: round(sum(a[kind] == f[kind] for a, f in zip(answers, facts["test"], strict=True)) / count, 3)
        for kind in WORDS
    }
    of_id, other = dict(zip(ids["test"], facts["test"], strict=True)), read_json(root / "other_target.json")
    wrong = [
        (answer["direction"], of_id[other[i]]["direction"])
        for i, answer in zip(ids["test"], answers, strict=True)
        if answer["direction"] != of_id[i]["direction"]
    ]
    result["wrong directions"] = {
        "count": len(wrong),
        "are the other object's": round(sum(a == b for a, b in wrong) / max(1, len(wrong)), 3),
    }
    lines = ["| read from | colour | shape | direction |", "|---|---|---|---|"]
    lines += [f"| {place} | {' | '.join(f'{v:.3f}' for v in row.values())} |" for place, row in result.items()][:-1]
    sys.stdout.write("\n".join(lines) + "\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

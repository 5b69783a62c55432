"""InternVL in the original layout, slowly and plainly as the specification reads: tiny checkpoints, their forward.

Written from the specification alone: fused q, k, v in the ViT, InternLM2's grouped wqkv, Phi3's fused projections, and
the box adapter on [F, C, H, W] with its norm over space. No two sizes are alike but C = H * W, which that norm needs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as nnf
from torchvision.ops import roi_align

TILE_PX, PATCH_PX, FRAMES = 60, 10, 3
GRID = TILE_PX // PATCH_PX
WIDTH, VIT_LAYERS, VIT_HEADS, VIT_INNER = GRID * GRID, 7, 3, 44
D, LLM_LAYERS, HEADS, KV_HEADS, INNER, VOCAB = 48, 2, 6, 2, 52, 97
HEAD_DIM, TOKENS, IMAGE_ID = D // HEADS, (GRID // 2) ** 2, 95
EPS = 1e-6

CLASSES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "internlm2": "InternLM2ForCausalLM",
    "llama": "LlamaForCausalLM",
    "phi3": "Phi3ForCausalLM",
}


def original_config(llm: str, vit: str = "300M", adapters: int = 0) -> dict[str, Any]:
    large = vit == "6B"
    name = {0: "InternVLChatModel", 1: "InternVLChatModelWBbox"}.get(adapters, "InternVLChatModelWBboxML")
    llm_config: dict[str, Any] = {
        "architectures": [CLASSES[llm]],
        "model_type": llm,
        "hidden_size": D,
        "intermediate_size": INNER,
        "num_hidden_layers": LLM_LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCAB,
        "max_position_embeddings": 512,
        "rms_norm_eps": EPS,
        "rope_theta": 10000.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    if llm == "internlm2":
        llm_config |= {"bias": False, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    if llm == "qwen3":
        llm_config["head_dim"] = HEAD_DIM
    return {
        "architectures": [name],
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "force_image_size": TILE_PX,
        "llm_config": llm_config,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "torch_dtype": "float32",
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "hidden_size": WIDTH,
            "intermediate_size": VIT_INNER,
            "num_hidden_layers": VIT_LAYERS,
            "num_attention_heads": VIT_HEADS,
            "image_size": TILE_PX,
            "patch_size": PATCH_PX,
            "norm_type": "rms_norm" if large else "layer_norm",
            "qk_normalization": large,
            "qkv_bias": not large,
            "layer_norm_eps": EPS,
            "initializer_factor": 1.0,
        },
    }


def _shapes(llm: str, vit: str, adapter_prefixes: list[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    norm_leaves = (".weight",) if vit == "6B" else (".weight", ".bias")
    yield "vision_model.embeddings.class_embedding", (1, 1, WIDTH)
    yield "vision_model.embeddings.position_embedding", (1, 1 + GRID * GRID, WIDTH)
    yield "vision_model.embeddings.patch_embedding.weight", (WIDTH, 3, PATCH_PX, PATCH_PX)
    yield "vision_model.embeddings.patch_embedding.bias", (WIDTH,)
    for n in range(VIT_LAYERS):
        p = f"vision_model.encoder.layers.{n}."
        yield from ((p + norm + leaf, (WIDTH,)) for norm in ("norm1", "norm2") for leaf in norm_leaves)
        yield from ((p + scale, (WIDTH,)) for scale in ("ls1", "ls2"))
        yield p + "attn.qkv.weight", (3 * WIDTH, WIDTH)
        if vit == "6B":
            yield from ((p + f"attn.{x}_norm.weight", (WIDTH,)) for x in "qk")
        else:
            yield p + "attn.qkv.bias", (3 * WIDTH,)
        sizes = (("attn.proj", WIDTH, WIDTH), ("mlp.fc1", VIT_INNER, WIDTH), ("mlp.fc2", WIDTH, VIT_INNER))
        for name, out, inner in sizes:
            yield from ((p + name + ".weight", (out, inner)), (p + name + ".bias", (out,)))
    for p in adapter_prefixes:
        for name, out, inner, side in (
            ("roi_mlp.0", 2 * WIDTH, WIDTH, 3),
            ("roi_mlp.2", WIDTH, 2 * WIDTH, 1),
            ("attention.query_conv", WIDTH, WIDTH, 1),
            ("attention.key_conv", WIDTH, WIDTH, 1),
            ("attention.value_conv", WIDTH, WIDTH, 1),
            ("attn_out", WIDTH, WIDTH, 1),
        ):
            yield from ((p + name + ".weight", (out, inner, side, side)), (p + name + ".bias", (out,)))
        yield p + "ffn.project_in.weight", (4 * WIDTH, WIDTH, 1, 1)
        yield p + "ffn.dwconv.weight", (4 * WIDTH, 1, 3, 3)
        yield p + "ffn.project_out.weight", (WIDTH, 2 * WIDTH, 1, 1)
        yield from ((p + f"norm{i}.weight", (GRID * GRID,)) for i in (1, 2))
    yield from (("mlp1.0.weight", (4 * WIDTH,)), ("mlp1.0.bias", (4 * WIDTH,)))
    yield from (("mlp1.1.weight", (D, 4 * WIDTH)), ("mlp1.1.bias", (D,)))
    yield from (("mlp1.3.weight", (D, D)), ("mlp1.3.bias", (D,)))
    yield from _llm_shapes(llm)


def _llm_shapes(llm: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    inside, q, kv = "language_model.model.", HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    internlm2 = llm == "internlm2"
    yield inside + ("tok_embeddings" if internlm2 else "embed_tokens") + ".weight", (VOCAB, D)
    yield "language_model." + ("output" if internlm2 else "lm_head") + ".weight", (VOCAB, D)
    yield inside + "norm.weight", (D,)
    for n in range(LLM_LAYERS):
        p = f"{inside}layers.{n}."
        if internlm2:
            yield from ((p + norm + ".weight", (D,)) for norm in ("attention_norm", "ffn_norm"))
            yield p + "attention.wqkv.weight", (q + 2 * kv, D)
            yield p + "attention.wo.weight", (D, q)
            yield from ((p + f"feed_forward.{w}.weight", (INNER, D)) for w in ("w1", "w3"))
            yield p + "feed_forward.w2.weight", (D, INNER)
            continue
        yield from ((p + norm + ".weight", (D,)) for norm in ("input_layernorm", "post_attention_layernorm"))
        yield p + "self_attn.o_proj.weight", (D, q)
        yield p + "mlp.down_proj.weight", (D, INNER)
        if llm == "phi3":
            yield p + "self_attn.qkv_proj.weight", (q + 2 * kv, D)
            yield p + "mlp.gate_up_proj.weight", (2 * INNER, D)
            continue
        yield from ((p + f"mlp.{w}_proj.weight", (INNER, D)) for w in ("gate", "up"))
        for x, rows in (("q", q), ("k", kv), ("v", kv)):
            yield p + f"self_attn.{x}_proj.weight", (rows, D)
            if llm == "qwen2":
                yield p + f"self_attn.{x}_proj.bias", (rows,)
            if llm == "qwen3" and x != "v":
                yield p + f"self_attn.{x}_norm.weight", (HEAD_DIM,)


def random_weights(llm: str, vit: str, adapter_prefixes: list[str], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in _shapes(llm, vit, adapter_prefixes):
        drawn = torch.randn(shape, generator=generator)
        is_norm = "norm" in name.rsplit(".", 2)[-2] and name.endswith("weight")
        is_gain = is_norm or name.endswith(("ls1", "ls2", "mlp1.0.weight"))
        weights[name] = 1 + 0.1 * drawn if is_gain else drawn * (0.8 / math.sqrt(max(1, math.prod(shape[1:]))))
    return weights


def adapter_prefixes(count: int) -> list[str]:
    if count == 1:
        return ["box_attention."]
    return [f"vision_model.encoder.box_attentions.{n}." for n in range(count)]


def inputs(seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(3, 90, (1, 14), generator=generator)
    images = torch.full((1, FRAMES * TOKENS), IMAGE_ID)
    ids = torch.cat([words[:, :3], images, words[:, 3:]], dim=1)
    labels = ids.clone()
    labels[:, :-6] = -100
    low = torch.randint(0, 400, (FRAMES, 2), generator=generator)
    return {
        "pixel_values": torch.randn(FRAMES, 3, TILE_PX, TILE_PX, generator=generator),
        "input_ids": ids,
        "labels": labels,
        "bboxes": torch.cat([low, low + torch.randint(90, 600, (FRAMES, 2), generator=generator)], dim=1),
    }


class Original:
    """The forward of an original checkpoint."""

    def __init__(self, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
        self.config, self.w = config, weights
        self.llm = config["llm_config"]["model_type"]
        self.large = config["vision_config"]["qk_normalization"]

    def linear(self, name: str, x: Tensor) -> Tensor:
        return nnf.linear(x, self.w[name + ".weight"], self.w.get(name + ".bias"))

    def conv(self, name: str, x: Tensor, **kwargs: int) -> Tensor:
        return nnf.conv2d(x, self.w[name + ".weight"], self.w.get(name + ".bias"), **kwargs)

    def rms(self, name: str, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * self.w[name + ".weight"]

    def vit_norm(self, name: str, x: Tensor) -> Tensor:
        if self.large:
            return self.rms(name, x)
        return nnf.layer_norm(x, (WIDTH,), self.w[name + ".weight"], self.w[name + ".bias"], EPS)

    def vit_attention(self, p: str, x: Tensor) -> Tensor:
        q, k, v = self.linear(p + "qkv", x).chunk(3, dim=-1)
        if self.large:
            q, k = self.rms(p + "q_norm", q), self.rms(p + "k_norm", k)
        q, k, v = (t.unflatten(-1, (VIT_HEADS, -1)).transpose(1, 2) for t in (q, k, v))
        scores = (q @ k.transpose(2, 3)) / math.sqrt(WIDTH // VIT_HEADS)
        return self.linear(p + "proj", (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def adapter(self, p: str, f: Tensor, boxes: Tensor) -> Tensor:
        def norm(name: str, x: Tensor) -> Tensor:
            return self.rms(p + name, x.flatten(2)).view_as(x)

        x = norm("norm1", f)
        rois = torch.cat([torch.arange(len(boxes))[:, None].float(), boxes.float() / 1000 * GRID], dim=1)
        r = roi_align(x, rois, 7, 1.0, -1, False)
        r = self.conv(p + "roi_mlp.2", nnf.gelu(self.conv(p + "roi_mlp.0", r, padding=1)))
        q = self.conv(p + "attention.query_conv", x).flatten(2).transpose(1, 2)
        k = self.conv(p + "attention.key_conv", r).flatten(2)
        v = self.conv(p + "attention.value_conv", r).flatten(2).transpose(1, 2)
        attended = ((q @ k) / math.sqrt(WIDTH)).softmax(-1) @ v
        f = f + self.conv(p + "attn_out", attended.transpose(1, 2).reshape(f.shape))
        h = self.conv(p + "ffn.project_in", norm("norm2", f))
        a, b = self.conv(p + "ffn.dwconv", h, padding=1, groups=4 * WIDTH).chunk(2, dim=1)
        return f + self.conv(p + "ffn.project_out", nnf.gelu(a) * b)

    def adapt(self, p: str, x: Tensor, boxes: Tensor) -> Tensor:
        grid = x[:, 1:].transpose(1, 2).reshape(-1, WIDTH, GRID, GRID)
        return torch.cat([x[:, :1], self.adapter(p, grid, boxes).flatten(2).transpose(1, 2)], dim=1)

    def visual_tokens(self, pixel_values: Tensor, boxes: Tensor | None) -> Tensor:
        e = "vision_model.embeddings."
        patches = self.conv(e + "patch_embedding", pixel_values, stride=PATCH_PX).flatten(2).transpose(1, 2)
        x = torch.cat([self.w[e + "class_embedding"].expand(len(patches), -1, -1), patches], dim=1)
        x = x + self.w[e + "position_embedding"]
        listed = sorted({n.split(".")[3] for n in self.w if ".box_attentions." in n})
        for n in range(VIT_LAYERS):
            p = f"vision_model.encoder.layers.{n}."
            x = x + self.w[p + "ls1"] * self.vit_attention(p + "attn.", self.vit_norm(p + "norm1", x))
            inner = nnf.gelu(self.linear(p + "mlp.fc1", self.vit_norm(p + "norm2", x)))
            x = x + self.w[p + "ls2"] * self.linear(p + "mlp.fc2", inner)
            if n >= VIT_LAYERS - len(listed):
                number = n - VIT_LAYERS + len(listed)
                x = self.adapt(f"vision_model.encoder.box_attentions.{number}.", x, boxes)
        if "box_attention.norm1.weight" in self.w:
            x = self.adapt("box_attention.", x, boxes)
        cells = x[:, 1:].reshape(-1, GRID // 2, 2, GRID // 2, 2, WIDTH)
        # Pixel shuffle v2: the four patches of a cell side by side.
        shuffled = cells.permute(0, 1, 3, 2, 4, 5).reshape(-1, TOKENS, 4 * WIDTH)
        shuffled = nnf.layer_norm(shuffled, (4 * WIDTH,), self.w["mlp1.0.weight"], self.w["mlp1.0.bias"])
        return self.linear("mlp1.3", nnf.gelu(self.linear("mlp1.1", shuffled)))

    def qkv(self, p: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        group = HEADS // KV_HEADS
        if self.llm == "internlm2":
            fused = self.linear(p + "attention.wqkv", x).unflatten(-1, (KV_HEADS, group + 2, HEAD_DIM))
            return fused[..., :group, :].flatten(-3, -2), fused[..., group, :], fused[..., group + 1, :]
        if self.llm == "phi3":
            fused = self.linear(p + "self_attn.qkv_proj", x)
            parts = fused.split((D, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM), dim=-1)
        else:
            parts = tuple(self.linear(p + f"self_attn.{name}_proj", x) for name in "qkv")
        q, k, v = (t.unflatten(-1, (-1, HEAD_DIM)) for t in parts)
        if self.llm == "qwen3":
            q, k = self.rms(p + "self_attn.q_norm", q), self.rms(p + "self_attn.k_norm", k)
        return q, k, v

    def mlp(self, p: str, x: Tensor) -> Tensor:
        if self.llm == "internlm2":
            gate, up, down = (p + f"feed_forward.{w}" for w in ("w1", "w3", "w2"))
            return self.linear(down, nnf.silu(self.linear(gate, x)) * self.linear(up, x))
        if self.llm == "phi3":
            a, b = self.linear(p + "mlp.gate_up_proj", x).chunk(2, dim=-1)
        else:
            a, b = self.linear(p + "mlp.gate_proj", x), self.linear(p + "mlp.up_proj", x)
        return self.linear(p + "mlp.down_proj", nnf.silu(a) * b)

    def attention(self, p: str, x: Tensor) -> Tensor:
        q, k, v = (t.transpose(1, 2) for t in self.qkv(p, x))
        q, k = rotate(q), rotate(k)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=1) for t in (k, v))
        scores = (q @ k.transpose(2, 3)) / math.sqrt(HEAD_DIM)
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        out = "attention.wo" if self.llm == "internlm2" else "self_attn.o_proj"
        return self.linear(p + out, mixed.transpose(1, 2).flatten(2))

    def logits(self, ids: Tensor, visual: Tensor) -> Tensor:
        inside, internlm2 = "language_model.model.", self.llm == "internlm2"
        x = self.w[inside + ("tok_embeddings" if internlm2 else "embed_tokens") + ".weight"][ids].clone()
        x[ids == IMAGE_ID] = visual.flatten(0, 1)
        first, second = ("attention_norm", "ffn_norm") if internlm2 else ("input_layernorm", "post_attention_layernorm")
        for n in range(LLM_LAYERS):
            p = f"{inside}layers.{n}."
            x = x + self.attention(p, self.rms(p + first, x))
            x = x + self.mlp(p, self.rms(p + second, x))
        return self.linear("language_model." + ("output" if internlm2 else "lm_head"), self.rms(inside + "norm", x))


def rotate(x: Tensor) -> Tensor:
    """Rotary embedding in the half-split form, base 10000."""
    angles = torch.arange(x.shape[2])[:, None] * 10000.0 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


def write_checkpoint(folder: Path, llm: str, vit: str = "300M", adapters: int = 0, seed: int = 0) -> Original:
    """An original checkpoint of random weights in `folder`, and its forward."""
    folder.mkdir(parents=True)
    config = original_config(llm, vit, adapters)
    weights = random_weights(llm, vit, adapter_prefixes(adapters), seed)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return Original(config, weights)


@torch.no_grad()
def write_case(folder: Path, llm: str, vit: str = "300M", adapters: int = 0) -> None:
    """A parity case: checkpoint, inputs and what the forward above computes from them."""
    model = write_checkpoint(folder / "checkpoint", llm, vit, adapters)
    case = inputs()
    boxes = case["bboxes"] if adapters else None
    visual = model.visual_tokens(case["pixel_values"], boxes)
    logits = model.logits(case["input_ids"], visual)
    ids = case["input_ids"][:, :-6]
    for _ in range(8):
        ids = torch.cat([ids, model.logits(ids, visual)[:, -1:].argmax(-1)], dim=1)
    greedy = ids[:, case["input_ids"].shape[1] - 6 :]
    assert 2 not in greedy, "choose another seed: the continuation ends early"
    results = {
        "expected_visual_tokens": visual,
        "expected_logits": logits,
        "expected_loss": nnf.cross_entropy(logits[0, :-1], case["labels"][0, 1:]).reshape(1),
        "expected_greedy_ids": greedy,
    }
    if not adapters:
        del case["bboxes"]
    save_file({k: v.contiguous() for k, v in {**case, **results}.items()}, folder / "case.safetensors")

"""The workloads that speed is measured on: geometry with random weights, and the batches of a training step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from internvl_chat.contracts import PackedFeatures
from internvl_chat.data.prompts.encoder import SamplePlan
from internvl_chat.data.training_set.collator import PackCollator
from internvl_chat.data.training_set.packing import pack_answers
from internvl_chat.model.families.internvl import IntentVCNetConfig, IntentVCNetForConditionalGeneration
from internvl_chat.model.memory.lora_sum import sum_in_place
from internvl_chat.model.memory.recomputation import Recomputation, recompute
from internvl_chat.model.memory.rms_norm import fuse_norms
from internvl_chat.model.shared_prefix import use_shared_prefix_attention
from internvl_chat.model.trainable import TrainablePart, lora_target_pattern
from internvl_chat.planning.footprint import PassShape
from internvl_chat.vision import Vision

LORA_RANK, LORA_DROPOUT = 128, 0.05
TRAINED = TrainablePart(LORA_RANK, freeze_llm=False, freeze_mlp=False, freeze_backbone=True)


@dataclass(frozen=True)
class Workload:
    """A model's geometry and one video's captions.

    Args:
        frames, tile_px: what the ViT sees of a video.
        text_tokens: of the prompt, without the frames'.
        captions, caption_tokens: answers to the prompt.
        recomputation: when all captions share a pass.
    """

    vision: dict[str, Any]
    text: dict[str, Any]
    tile_px: int
    frames: int
    text_tokens: int
    captions: int = 5
    caption_tokens: int = 20
    num_adapter_layers: int = 5
    recomputation: Recomputation = Recomputation()
    vocab_size: int = 151_674

    @property
    def image_token_id(self) -> int:
        """Among the marks, which are the last in the vocabulary."""
        return self.vocab_size - 7

    @property
    def num_words(self) -> int:
        """Token ids below are words."""
        return self.vocab_size - 1_674

    @property
    def tokens_per_frame(self) -> int:
        return (self.tile_px // 28) ** 2

    @property
    def pass_shape(self) -> PassShape:
        """Of a pass over all captions of the video."""
        targets = self.captions * self.caption_tokens
        prompt = self.frames * self.tokens_per_frame + self.text_tokens
        return PassShape(self.frames, prompt + targets, targets)

    def with_frames(self, frames: int) -> Workload:
        """The same with another number of frames and the coordinates that they bring (28 tokens each)."""
        return replace(self, frames=frames, text_tokens=self.text_tokens + 28 * (frames - self.frames))


W1 = Workload(
    vision={"hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 1024},
    text={
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "intermediate_size": 1536,
    },
    tile_px=224,
    frames=16,
    text_tokens=40 + 16 * 28,
    recomputation=Recomputation.of_layers(3),
)
# InternVL3-8B: InternViT-300M and Qwen2.5-7B; the prompt of 40 frames with their boxes.
W2 = Workload(
    vision={"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    text={
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "rope_theta": 1_000_000.0,
    },
    tile_px=448,
    frames=40,
    text_tokens=60 + 40 * 38,
    recomputation=Recomputation(cheap=True, tower=True),
)


def config_of(workload: Workload) -> IntentVCNetConfig:
    """The geometry as a model's configuration."""
    return IntentVCNetConfig(
        vision_config={
            **workload.vision,
            "image_size": [workload.tile_px, workload.tile_px],
            "patch_size": [14, 14],
            "attention_bias": True,
            "layer_scale_init_value": 0.1,
            "num_adapter_layers": workload.num_adapter_layers,
        },
        text_config={
            "model_type": "qwen2",
            **workload.text,
            "vocab_size": workload.vocab_size,
            "max_position_embeddings": 32_768,
            "tie_word_embeddings": False,
        },
        image_token_id=workload.image_token_id,
        image_seq_length=workload.tokens_per_frame,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )


def lora_config(dropout: float = LORA_DROPOUT) -> LoraConfig:
    """On every matrix of the language model's layers, as the training script has it."""
    return LoraConfig(
        r=LORA_RANK,
        lora_alpha=2 * LORA_RANK,
        lora_dropout=dropout,
        target_modules=lora_target_pattern("qwen2"),
        task_type="CAUSAL_LM",
    )


def build_model(workload: Workload, device: str, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """Random weights with LoRA and box adapters; trained is what the training script trains."""
    config = config_of(workload)
    torch.manual_seed(0)
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = IntentVCNetForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(default_dtype)
    fuse_norms(model)
    use_shared_prefix_attention(model)
    wrapped = get_peft_model(model, lora_config(), autocast_adapter_dtype=False)
    sum_in_place(wrapped)
    TRAINED.mark(wrapped)
    recompute(model, workload.recomputation)
    return wrapped.train()


def _plans(workload: Workload) -> tuple[list[SamplePlan], Vision]:
    rng = np.random.default_rng(0)

    def text(length: int) -> list[int]:
        return rng.integers(0, workload.num_words, length).tolist()

    places = [workload.image_token_id] * (workload.frames * workload.tokens_per_frame)
    prompt = text(20) + places + text(workload.text_tokens - 20)
    corners = rng.integers(0, 400, (workload.frames, 2))
    boxes = np.concatenate([corners, corners + 300], axis=1)
    tensors = {"boxes": torch.from_numpy(boxes)}
    plans = []
    for _ in range(workload.captions):
        answer = text(workload.caption_tokens)
        labels = [-100] * len(prompt) + answer
        plans.append(SamplePlan(prompt + answer, labels, np.arange(workload.frames), tensors))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(workload.frames, 3, workload.tile_px, workload.tile_px, generator=generator)
    return plans, {"pixel_values": pixels}


def shared_batch(workload: Workload) -> PackedFeatures:
    """All captions in one pass."""
    return PackCollator({})([pack_answers(*_plans(workload), "token")])


def separate_batches(workload: Workload) -> list[dict[str, Any]]:
    """One caption a pass, as the native model takes them: with labels, and so with all logits."""
    plans, pixels = _plans(workload)
    return [
        {
            "input_ids": torch.tensor([plan.input_ids]),
            "labels": torch.tensor([plan.labels]),
            "vision": {**pixels, **plan.tensors},
        }
        for plan in plans
    ]

"""What Artemis' training begins from, in miniature: a Llama with a tokenizer of one token a byte, and a CLIP tower."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from tests.data.families.test_artemis import tokenizer_of
from tests.model.families.test_artemis_original import LLAMA, TOWER

SIDE_PX = TOWER["image_size"]
_PREFIX = "vision_model."


def write_llama(folder: Path) -> Path:
    """A bare language model, as Vicuna lies on the hub."""
    tokenizer = tokenizer_of()
    sizes = {name: LLAMA[name] for name in LLAMA if name in LlamaConfig().to_dict() and name != "model_type"}
    config = LlamaConfig(**sizes | {"vocab_size": len(tokenizer) - 3, "max_position_embeddings": 2048})
    torch.manual_seed(1)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_tower(folder: Path, seed: int = 2) -> Path:
    """A tower alone, its tensors named as in CLIP's own files."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(TOWER))
    torch.manual_seed(seed)
    tower = CLIPVisionModel(CLIPVisionConfig(**{k: v for k, v in TOWER.items() if k != "model_type"}))
    tensors = {_PREFIX + name.removeprefix(_PREFIX): tensor for name, tensor in tower.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    return folder

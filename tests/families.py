"""Miniature checkpoints of InternVL2's families, in the original layout, with a tokenizer of one token a byte."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from internvl_chat.model.conversion.weight_files import LazyTensor, write_weights
from internvl_chat.model.families.internvl.original import native_config, weight_map
from internvl_chat.model.loading import expected_shapes
from tests.helpers import byte_tokenizer
from tests.model.original_reference import original_config


@dataclass(frozen=True)
class Family:
    """A language model, a ViT, and the template of the family's chats."""

    llm: str
    vit: str
    template: str
    begins_with_bos: bool


FAMILIES = {
    "internvl2_1b": Family("qwen2", "300M", "Hermes-2", False),
    "internvl2_2b": Family("internlm2", "300M", "internlm2-chat", True),
    "internvl2_4b": Family("phi3", "300M", "phi3-chat", True),
    "internvl2_8b": Family("internlm2", "300M", "internlm2-chat", True),
    "internvl2_26b": Family("internlm2", "6B", "internlm2-chat", True),
    "internvl2_40b": Family("llama", "6B", "Hermes-2", False),
    "internvl2_76b": Family("llama", "6B", "internlm2-chat", True),
}


def family_tokenizer(begins_with_bos: bool) -> PreTrainedTokenizerFast:
    """The byte tokenizer with the tokens of every template of the family."""
    made = byte_tokenizer()
    made.add_tokens(["<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<s>"], special_tokens=True)
    if begins_with_bos:
        bos = made.convert_tokens_to_ids("<s>")
        made.bos_token = "<s>"
        made.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return made


def write_family(folder: Path, name: str, with_weights: bool = True) -> Path:
    """A checkpoint of a family; without weights it is a config.json alone."""
    family = FAMILIES[name]
    tokenizer = family_tokenizer(family.begins_with_bos)
    fields = original_config(family.llm, family.vit) | {"template": family.template}
    fields["llm_config"] |= {"vocab_size": len(tokenizer), "max_position_embeddings": 4096}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(fields))
    if with_weights:
        tokenizer.save_pretrained(folder)
        config = native_config(fields, folder)
        generator = torch.Generator().manual_seed(6)
        tensors = {
            path: LazyTensor(shape, torch.float32, lambda shape=shape: torch.randn(shape, generator=generator) * 0.1)
            for path, shape in expected_shapes(config).items()
        }
        write_weights(folder, weight_map(config).to_original(tensors), max_shard_bytes=10**9)
    return folder

"""A tiny CogVLM2-Video with a tokenizer of one token a byte, as the original's folder would hold it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from internvl_chat.data.families.cogvlm2_video import IMAGE_TOKEN
from internvl_chat.model.conversion.weight_files import LazyTensor, write_weights
from internvl_chat.model.families.cogvlm2_video import CogVLM2VideoConfig, CogVLM2VideoForConditionalGeneration
from internvl_chat.model.families.cogvlm2_video.original import original_config, weight_map

# Sizes of the tiny model; no two alike, so that an axis taken for another one shows.
TOWER_WIDTH, WIDTH, INNER, SIDE_PX, TOKENS_PER_FRAME = 12, 40, 28, 20, 6


def llama_byte_tokenizer() -> PreTrainedTokenizerFast:
    """Llama 3's special tokens that matter here, in its order, and a token a byte."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", IMAGE_TOKEN]
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special[0],
        eos_token=special[1],
        pad_token=special[2],
        additional_special_tokens=special[3:],
        clean_up_tokenization_spaces=False,
    )


def tiny_config(vocabulary: int = 53, bos: int = 5, eos: int = 6, pad: int = 7, image: int = 7) -> CogVLM2VideoConfig:
    """A grid of 4 x 4 patches: 4 tokens and two marks a frame."""
    vision = {
        "hidden_size": TOWER_WIDTH,
        "intermediate_size": 18,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": SIDE_PX,
        "patch_size": 5,
        "initializer_range": 0.2,
    }
    text: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": INNER,
        "vocab_size": vocabulary,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "initializer_range": 0.2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    }
    return CogVLM2VideoConfig(vision_config=vision, text_config=text, image_token_id=image)


def write_original(folder: Path, seed: int = 3) -> CogVLM2VideoForConditionalGeneration:
    """A folder in the original's layout, in two shards and with stored rotary frequencies; returns its native model."""
    tokenizer = llama_byte_tokenizer()
    ids = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    config = tiny_config(len(tokenizer), *ids, image=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    torch.manual_seed(seed)
    model = CogVLM2VideoForConditionalGeneration(config).eval()
    native = {n: LazyTensor(t.shape, t.dtype, lambda t=t: t) for n, t in model.state_dict().items()}
    tensors = weight_map(config).to_original(native)
    frequencies = torch.arange(5.0)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = LazyTensor(
        frequencies.shape, frequencies.dtype, lambda: frequencies
    )
    folder.mkdir(parents=True)
    assert write_weights(folder, tensors, 100_000) > 1
    (folder / "config.json").write_text(json.dumps(original_config(config)))
    tokenizer.save_pretrained(folder)
    return model

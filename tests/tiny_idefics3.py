"""An Idefics3 of a few thousand weights, as transformers saves it, with a tokenizer of one token a byte."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)

# No two alike, so that an axis taken for another one shows: 36 patches of a tile, nine tokens of them.
TILE_PX, PATCH_PX, TOKENS = 42, 7, 9
_TEMPLATE = (
    "<|begin_of_text|>{% for message in messages %}{{message['role'].capitalize()}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{part['text']}}"
    "{% else %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and the tokens that Idefics3's own tokenizer has beside its words."""
    symbols = ["<|pad|>", "<|end_of_text|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    cells = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    special = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *cells]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<end_of_utterance>",
        pad_token="<|pad|>",
        additional_special_tokens=special,
        clean_up_tokenization_spaces=False,
    )


def tiny_processor() -> Idefics3Processor:
    """transformers' own, for the tiny model's tiles."""
    images = Idefics3ImageProcessor(size={"longest_edge": 4 * TILE_PX}, max_image_size={"longest_edge": TILE_PX})
    return Idefics3Processor(images, tiny_tokenizer(), image_seq_len=TOKENS, chat_template=_TEMPLATE)


def tiny_config() -> Idefics3Config:
    tokenizer = tiny_tokenizer()
    vision = {"hidden_size": 30, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 44}
    vision |= {"image_size": TILE_PX, "patch_size": PATCH_PX, "initializer_range": 0.2}
    text = {"model_type": "llama", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "intermediate_size": 28, "vocab_size": len(tokenizer)}
    text |= {"max_position_embeddings": 4096, "initializer_range": 0.2, "bos_token_id": tokenizer.bos_token_id}
    text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    return Idefics3Config(vision_config=vision, text_config=text, scale_factor=2, image_token_id=image_token_id)


def write_tiny(folder: Path, seed: int = 0) -> Path:
    """A complete checkpoint as one downloads it."""
    torch.manual_seed(seed)
    Idefics3ForConditionalGeneration(tiny_config()).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder

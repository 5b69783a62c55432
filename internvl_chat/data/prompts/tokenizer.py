"""Tokenizers from whatever files a checkpoint ships, with its family's special tokens in them. No remote code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from transformers import (
    AddedToken,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from internvl_chat.constants import BOX_END, BOX_START, REF_END, REF_START, STEERING_TOKENS
from internvl_chat.contracts import UserError
from internvl_chat.families import Family, family_in

_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",))


def _shipped(folder: Path) -> tuple[str, ...] | None:
    return next((names for names in _FILES if all((folder / name).is_file() for name in names)), None)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer in one of the forms that can be read."""
    return _shipped(folder) is not None


def load_tokenizer(folder: Path, family: Family | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder, see `read_tokenizer`.

    Special tokens of the family that it lacks are appended, in the family's order.

    Args:
        family: whose tokenizer it is; None is the one that the folder's config.json tells.
    Raises:
        UserError: the folder holds none of them, they cannot be read, or nothing tells the family.
    """
    tokenizer = read_tokenizer(folder)
    add_special_tokens(tokenizer, (family or family_in(folder)).data.SPECIAL_TOKENS)
    return tokenizer


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer as its files have it: tokenizer.json, vocab.json with merges.txt, or tokenizer.model.

    Raises:
        UserError: the folder holds none of them, or they cannot be read.
    """
    shipped = _shipped(folder)
    if shipped is None:
        raise UserError(
            f"{folder}: holds no tokenizer: expected tokenizer.json, vocab.json with merges.txt, or tokenizer.model"
        )
    try:
        if shipped == ("tokenizer.json",):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        elif shipped == ("tokenizer.model",):
            tokenizer = _load_sentencepiece(folder)
        else:
            tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: its {' and '.join(shipped)} cannot be read ({error})") from error
    return tokenizer


def _load_sentencepiece(folder: Path) -> PreTrainedTokenizerBase:
    import sentencepiece

    # Whether text begins with a blank of its own is written in the model file; the class would assume that it does.
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    begins_with_blank = model.encode("a", out_type=str)[0].startswith("▁")
    settings = folder / "tokenizer_config.json"
    fields = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    # What a file of this kind means where it does not say.
    add_bos_token = fields.get("add_bos_token", True)
    return LlamaTokenizer.from_pretrained(folder, add_prefix_space=begins_with_blank, add_bos_token=add_bos_token)


def rewrite_tokenizer(source: Path, target: Path) -> None:
    """Save the tokenizer of `source` to `target` in the form that `AutoTokenizer` reads without remote code."""
    if has_tokenizer(source):
        load_tokenizer(source).save_pretrained(target)


def add_special_tokens(tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> int:
    """Append those of a family's special tokens that are missing, looked up by name.

    Returns:
        How many were added.
    """
    known = tokenizer.get_vocab()
    missing = [AddedToken(name, special=True, normalized=False) for name in names if name not in known]
    return tokenizer.add_tokens(missing, special_tokens=True) if missing else 0


def tokens_that_steer(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Those of `STEERING_TOKENS` that this tokenizer does not take for text."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(token for token in STEERING_TOKENS if token in special.union(tokenizer.all_special_tokens))


def hidden_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The special tokens that are no part of an answer: all but the tags of labels and boxes."""
    tags = set(tokenizer.convert_tokens_to_ids([REF_START, REF_END, BOX_START, BOX_END]))
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(special.union(tokenizer.all_special_ids) - tags)


def answer_text(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """What a model wrote, with the tags of its boxes, which decoding without special tokens would drop."""
    hidden = hidden_ids(tokenizer)
    return tokenizer.decode([token_id for token_id in token_ids if token_id not in hidden]).strip()

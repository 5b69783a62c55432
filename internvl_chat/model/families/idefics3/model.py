"""Idefics3 that captions: transformers' own model, with tiles of all samples side by side and packed rows.

Shape letters: B samples, L text positions, D the language model's width, T tiles of all samples together, S their side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, Idefics3ForConditionalGeneration, Idefics3Model
from transformers.models.idefics3.modeling_idefics3 import Idefics3PreTrainedModel

from internvl_chat.model.captioning import Captioning, repeated
from internvl_chat.model.families.idefics3.configuration import Idefics3CaptionerConfig
from internvl_chat.model.label_loss import LanguageHead
from internvl_chat.vision import Vision


class Idefics3CaptionerModel(Idefics3Model):
    """transformers' Idefics3 without its head."""

    config_class = Idefics3CaptionerConfig

    @property
    def language_model(self) -> nn.Module:
        """Llama, without its head."""
        return self.text_model

    def embed_prompt(self, input_ids: torch.Tensor, vision: Vision) -> tuple[torch.Tensor, None]:
        """Text embeddings with the tiles' tokens in the places of `<image>`; positions count the tokens.

        Args:
            input_ids: [B, L].
            vision: `pixel_values` [T, 3, S, S], tiles of all samples in order; empty for text alone.
        Returns:
            [B, L, D].
        Raises:
            RuntimeError: the number of `<image>` tokens is not that of the tiles' tokens.
        """
        inputs_embeds = self.get_input_embeddings()(input_ids)
        if not vision:
            return inputs_embeds, None
        # Every tile is a whole square, so that no part of it is padding.
        hidden = self.vision_model(pixel_values=vision["pixel_values"].to(self.dtype)).last_hidden_state
        features = self.connector(hidden).flatten(0, 1).to(inputs_embeds.dtype)
        if not bool((input_ids == self.config.image_token_id).any()):
            # A row of text alone brings one blank tile: every rank runs, and has gradients of, the same layers.
            return inputs_embeds + 0 * features.sum(), None
        return self.inputs_merger(input_ids, inputs_embeds, features), None

    def spread(self, visions: Sequence[Vision], rows: Sequence[int]) -> Vision:
        """What prompts show that share clips; see `repeated`."""
        return repeated(visions, rows)


class Idefics3Captioner(Captioning, Idefics3ForConditionalGeneration):
    """transformers' Idefics3: `forward(..., vision)` and `generate(..., vision)`, see `embed_prompt`."""

    config_class = Idefics3CaptionerConfig

    def __init__(self, config: Idefics3CaptionerConfig) -> None:
        # The parent's constructor would first build, and allocate, another model.
        Idefics3PreTrainedModel.__init__(self, config)
        self.model = Idefics3CaptionerModel(config)
        self.lm_head = LanguageHead(config.text_config.hidden_size, config.text_config.vocab_size)
        self.post_init()


Captioner = Idefics3Captioner

AutoModelForImageTextToText.register(Idefics3CaptionerConfig, Idefics3Captioner)

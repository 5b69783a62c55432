"""Its model: transformers' LLaVA, whose tiles' tokens stand in the places of its image token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration, LlavaModel
from transformers.models.llava.modeling_llava import LlavaPreTrainedModel

from internvl_chat.model.captioning import Captioning, repeated
from internvl_chat.model.families.made_up.configuration import MadeUpConfig
from internvl_chat.model.label_loss import LanguageHead
from internvl_chat.vision import Vision


class MadeUpModel(LlavaModel):
    config_class = MadeUpConfig

    def embed_prompt(self, input_ids: torch.Tensor, vision: Vision) -> tuple[torch.Tensor, None]:
        embeds = self.get_input_embeddings()(input_ids)
        if not vision:
            return embeds, None
        patches = self.vision_tower(vision["pixel_values"].to(self.dtype)).last_hidden_state[:, 1:]
        tokens = self.multi_modal_projector(patches).flatten(0, 1)
        places = input_ids == self.config.image_token_id
        if not bool(places.any()):
            return embeds + 0 * tokens.sum(), None
        return embeds.masked_scatter(places[..., None], tokens.to(embeds.dtype)), None

    def spread(self, visions: Sequence[Vision], rows: Sequence[int]) -> Vision:
        return repeated(visions, rows)


class MadeUpCaptioner(Captioning, LlavaForConditionalGeneration):
    config_class = MadeUpConfig

    def __init__(self, config: MadeUpConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.model = MadeUpModel(config)
        self.lm_head = LanguageHead(config.text_config.hidden_size, config.text_config.vocab_size)
        self.post_init()


Captioner = MadeUpCaptioner
AutoModelForImageTextToText.register(MadeUpConfig, MadeUpCaptioner)

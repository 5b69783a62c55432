"""InternVL that captions what a box points at: the native model with boxes handed to its vision tower.

Shape letters: B samples, L text positions, D the language model's width, F frames of all samples together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import AutoModel, AutoModelForImageTextToText, InternVLForConditionalGeneration, InternVLModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.models.internvl.modeling_internvl import InternVLPreTrainedModel

from internvl_chat.model.captioning import Captioning, repeated
from internvl_chat.model.controls.box_adapter import init_added
from internvl_chat.model.families.internvl.configuration import IntentVCNetConfig
from internvl_chat.model.families.internvl.regions import VisualRegions
from internvl_chat.model.families.internvl.vision import IntentVCNetVisionModel  # noqa: F401  (registers the vision tower)
from internvl_chat.model.label_loss import LanguageHead
from internvl_chat.model.pixels import normalised
from internvl_chat.vision import Vision, joined


class IntentVCNetModel(InternVLModel):
    """The native InternVL without its head; its vision tower is built from `IntentVCNetVisionConfig`."""

    config_class = IntentVCNetConfig

    def __init__(self, config: IntentVCNetConfig) -> None:
        super().__init__(config)
        self.region_encoder = VisualRegions(config) if config.region_tokens else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if not init_added(module):
            super()._init_weights(module)

    def embed_prompt(self, input_ids: torch.Tensor, vision: Vision) -> tuple[torch.Tensor, None]:
        """Text embeddings with the frames' tokens in the places of `<IMG_CONTEXT>`; positions count the tokens.

        Args:
            input_ids: [B, L].
            vision: `pixel_values` [F, 3, S, S], frames of all samples in order, normalised or, with `normalisation`,
                bytes; `boxes` [F, 4] in thousandths, without which it is the plain base model; `trunk`, what the
                vision tower's `trunk` gave for these frames, where it is known; `region_*` [F, O, ...], where it has a
                region encoder, see `Regions.of`. Empty for text alone.
        Returns:
            [B, L, D].
        Raises:
            ValueError: the number of `<IMG_CONTEXT>` tokens is not that of the frames' tokens, or that of the regions'
                slots not that of the regions.
        """
        inputs_embeds = self.get_input_embeddings()(input_ids)
        if not vision:
            return inputs_embeds, None
        vision = normalised(vision, inputs_embeds.dtype)
        seen = {name: tensor for name, tensor in vision.items() if not name.startswith("region_")}
        features = self.get_image_features(**seen, return_dict=True).pooler_output
        features = features.to(inputs_embeds.dtype)
        if self.region_encoder is not None:
            slots = input_ids == self.config.region_token_id
            inputs_embeds = self.region_encoder.place(inputs_embeds, slots, self.vision_tower, vision, features)
        if not bool((input_ids == self.config.image_token_id).any()):
            # A row of text alone brings one blank tile: every rank runs, and has gradients of, the same layers.
            return inputs_embeds + 0 * features.sum(), None
        mask = self.get_placeholder_mask(input_ids, inputs_embeds=inputs_embeds, image_features=features)
        return inputs_embeds.masked_scatter(mask, features), None

    def spread(self, visions: Sequence[Vision], rows: Sequence[int]) -> Vision:
        """What prompts show that share clips, but for their boxes: layers below the first adapter see a clip once.

        Args:
            visions: `pixel_values` of each clip; empty for text alone.
            rows: the clip of each prompt.
        """
        spread = repeated(visions, rows)
        tower = self.vision_tower
        if not spread or len(rows) == len(visions) or not tower.box_adapters:
            return spread
        counts = [len(vision["pixel_values"]) if vision else 0 for vision in visions]
        trunks = tower.trunk(normalised(joined(visions), self.dtype)["pixel_values"]).split(counts)
        return {**spread, "trunk": torch.cat([trunks[row] for row in rows])}


class IntentVCNetForConditionalGeneration(Captioning, InternVLForConditionalGeneration):
    """The native InternVL with boxes: `forward(..., vision)` and `generate(..., vision)`, see `embed_prompt`."""

    config_class = IntentVCNetConfig

    def __init__(self, config: IntentVCNetConfig) -> None:
        # The parent's constructor would first build, and allocate, the model without boxes.
        InternVLPreTrainedModel.__init__(self, config)
        self.model = IntentVCNetModel(config)
        self.lm_head = LanguageHead(config.text_config.hidden_size, config.text_config.vocab_size)
        self.post_init()


Captioner = IntentVCNetForConditionalGeneration

# The names in the files are those of InternVL's `-hf` checkpoints, so that any of them can serve as the base.
register_checkpoint_conversion_mapping(
    IntentVCNetConfig.model_type, get_checkpoint_conversion_mapping("internvl"), overwrite=True
)
AutoModel.register(IntentVCNetConfig, IntentVCNetModel)
AutoModelForImageTextToText.register(IntentVCNetConfig, IntentVCNetForConditionalGeneration)

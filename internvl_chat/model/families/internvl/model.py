"""InternVL that captions what a box points at: the native model with boxes handed to its vision tower.

Shape letters: B samples, L text positions, D the language model's width, F frames of all samples together, N
supervised tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModel, AutoModelForImageTextToText, InternVLForConditionalGeneration, InternVLModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.models.internvl.modeling_internvl import InternVLCausalLMOutputWithPast, InternVLPreTrainedModel

from internvl_chat.contracts import SharedPrefix
from internvl_chat.model.families.internvl.configuration import IntentVCNetConfig
from internvl_chat.model.families.internvl.vision import IntentVCNetVisionModel  # noqa: F401  (registers the vision tower)
from internvl_chat.model.label_loss import LanguageHead
from internvl_chat.model.shared_prefix import PackedAttention


class IntentVCNetModel(InternVLModel):
    """The native InternVL without its head; its vision tower is built from `IntentVCNetVisionConfig`."""

    config_class = IntentVCNetConfig

    def embed_prompt(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        boxes: torch.Tensor | None = None,
        trunk: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Text embeddings with the frames' tokens in the places of `<IMG_CONTEXT>`.

        Args:
            input_ids: [B, L].
            pixel_values: [F, 3, S, S], frames of all samples in order; F may be 0.
            boxes: [F, 4] in thousandths, or None for the plain base model.
            trunk: what the vision tower's `trunk` gave for these frames, where it is known.
        Returns:
            [B, L, D].
        Raises:
            ValueError: the number of `<IMG_CONTEXT>` tokens is not that of the frames' tokens.
        """
        inputs_embeds = self.get_input_embeddings()(input_ids)
        if not len(pixel_values):
            return inputs_embeds
        features = self.get_image_features(
            pixel_values=pixel_values, boxes=boxes, trunk=trunk, return_dict=True
        ).pooler_output
        features = features.to(inputs_embeds.dtype)
        if not bool((input_ids == self.config.image_token_id).any()):
            # A row of text alone brings one blank tile: every rank runs, and has gradients of, the same layers.
            return inputs_embeds + 0 * features.sum()
        mask = self.get_placeholder_mask(input_ids, inputs_embeds=inputs_embeds, image_features=features)
        return inputs_embeds.masked_scatter(mask, features)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the native model, with `boxes` [F, 4] beside `pixel_values` [F, 3, S, S]."""
        if pixel_values is not None and input_ids is not None and inputs_embeds is None:
            inputs_embeds = self.embed_prompt(input_ids, pixel_values, boxes)
            return super().forward(inputs_embeds=inputs_embeds, **kwargs)
        return super().forward(input_ids=input_ids, pixel_values=pixel_values, inputs_embeds=inputs_embeds, **kwargs)


class IntentVCNetForConditionalGeneration(InternVLForConditionalGeneration):
    """The native InternVL with boxes: `forward(..., pixel_values, boxes)` and `generate(..., pixel_values, boxes)`."""

    config_class = IntentVCNetConfig

    def __init__(self, config: IntentVCNetConfig) -> None:
        # The parent's constructor would first build, and allocate, the model without boxes.
        InternVLPreTrainedModel.__init__(self, config)
        self.model = IntentVCNetModel(config)
        self.lm_head = LanguageHead(config.text_config.hidden_size, config.text_config.vocab_size)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        *,
        layout: Sequence[SharedPrefix] | None = None,
        target_positions: torch.Tensor | None = None,
        target_ids: torch.Tensor | None = None,
        loss_weights: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        """As the native model; or, with `layout`, the loss of a packed row.

        A packed row needs `use_shared_prefix_attention`. Logits exist only where a token is supervised.

        Args:
            input_ids: [B, L]; B is 1 for a packed row.
            layout: the samples of a packed row; `position_ids` [1, L] belong to it.
            target_positions, target_ids, loss_weights: [1, N], see `PackedFeatures`.
            num_items_in_batch: what the summed loss is divided by; the sum of `loss_weights` where it is not given.
            logits_to_keep: without `layout`, as the native model: how many last positions have logits, 0 for all.
                Named here because `generate` asks for the last alone only where the signature has it.
        Returns:
            With `layout`, an output that holds the loss alone.
        """
        if layout is None:
            if num_items_in_batch is not None:
                kwargs["num_items_in_batch"] = num_items_in_batch
            return super().forward(
                input_ids=input_ids,
                pixel_values=pixel_values,
                boxes=boxes,
                position_ids=position_ids,
                logits_to_keep=logits_to_keep,
                **kwargs,
            )
        assert input_ids is not None and target_positions is not None
        assert target_ids is not None and loss_weights is not None
        hidden = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            boxes=boxes,
            position_ids=position_ids,
            packed=PackedAttention.of(layout, target_positions[0]),
            # A mask of four axes is taken as it is: none of L x L is built.
            attention_mask=torch.empty(1, 1, 0, 0, device=input_ids.device),
            use_cache=False,
        ).last_hidden_state
        loss = self.lm_head(hidden[0], target_ids[0], loss_weights[0])
        total = loss_weights.sum() if num_items_in_batch is None else num_items_in_batch
        return InternVLCausalLMOutputWithPast(loss=loss / total)

    def generate(
        self,
        inputs: torch.Tensor | None = None,
        *,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """`GenerationMixin.generate` for prompts with frames and boxes.

        The prompt is embedded once, before beams or candidates are spread out: the generic code would repeat the
        frames one by one and so mix them up between beams. As everywhere in transformers, what is returned begins with
        the prompt's token ids.
        """
        input_ids = inputs if input_ids is None else input_ids
        if pixel_values is None or input_ids is None:
            return super().generate(input_ids, **kwargs)
        with torch.no_grad():
            inputs_embeds = self.model.embed_prompt(input_ids, pixel_values, boxes)
        return super().generate(input_ids, inputs_embeds=inputs_embeds, **kwargs)


# The names in the files are those of InternVL's `-hf` checkpoints, so that any of them can serve as the base.
register_checkpoint_conversion_mapping(
    IntentVCNetConfig.model_type, get_checkpoint_conversion_mapping("internvl"), overwrite=True
)
AutoModel.register(IntentVCNetConfig, IntentVCNetModel)
AutoModelForImageTextToText.register(IntentVCNetConfig, IntentVCNetForConditionalGeneration)

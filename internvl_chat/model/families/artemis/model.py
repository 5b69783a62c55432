"""Artemis: transformers' LLaVA whose text has slots for a video's pooled features and for the regions of a track.

Shape letters: B samples, L text positions, D the language model's width, C the tower's, N patches, F frames, P pictures
with one region each, V videos, M objects.
Source: Artemis, NeurIPS 2024, sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as nnf
from transformers import AutoModel, AutoModelForImageTextToText, LlavaForConditionalGeneration, LlavaModel
from transformers import initialization as init
from transformers.models.llava.modeling_llava import LlavaPreTrainedModel

from internvl_chat.model.clustering import representatives
from internvl_chat.model.controls.box_adapter import FanInConv2d, FanInLinear
from internvl_chat.model.controls.region_tokens import RegionEncoder
from internvl_chat.model.families.artemis.configuration import MAX_VIDEO_FRAMES, ArtemisConfig
from internvl_chat.model.label_loss import LanguageHead


def pooled_video(patches_FNC: torch.Tensor) -> torch.Tensor:
    """A video as the language model is shown it: each frame's mean, zeros up to 100 frames, then each patch's mean.

    Args:
        patches_FNC: of its frames, at most 100.
    Returns:
        [100 + N, C].
    Raises:
        ValueError: there are more frames, or none.
    """
    if not 0 < len(patches_FNC) <= MAX_VIDEO_FRAMES:
        raise ValueError(f"{len(patches_FNC)} frames: expected 1 to {MAX_VIDEO_FRAMES}")
    by_frame = nnf.pad(patches_FNC.mean(1), (0, 0, 0, MAX_VIDEO_FRAMES - len(patches_FNC)))
    return torch.cat([by_frame, patches_FNC.mean(0)])


class _FanInInitialised(LlavaPreTrainedModel):
    """Draws the region encoder's weights with variance 1 / fan-in; all others as transformers does."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (FanInLinear, FanInConv2d)):
            init.normal_(module.weight, mean=0.0, std=module.fan_in**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)


class ArtemisModel(_FanInInitialised, LlavaModel):
    """The native LLaVA without its head, with a region encoder on the tower's levels."""

    config_class = ArtemisConfig

    def __init__(self, config: ArtemisConfig) -> None:
        super().__init__(config)
        self.region_encoder = RegionEncoder(
            channels=config.vision_config.hidden_size,
            out_width=config.text_config.hidden_size,
            scales=config.region_scales,
            hidden_width=config.region_width,
            roi_cells=config.region_cells,
            num_fusions=config.region_fusions,
            num_groups=config.region_groups,
        )
        self.post_init()

    def level_features(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What regions are read from: [P, N, C] for each level of `region_layers`, without the class token."""
        states = self.vision_tower(pictures, output_hidden_states=True).hidden_states
        return tuple(states[layer][:, 1:] for layer in self.config.region_layers)

    def video_features(self, frames: torch.Tensor) -> torch.Tensor:
        """Pooled features [100 + N, C] of one video's frames [F, 3, S, S], before the projector."""
        states = self.vision_tower(frames, output_hidden_states=True).hidden_states
        return pooled_video(states[self.config.vision_feature_layer][:, 1:])

    def region_tokens(
        self, pictures: torch.Tensor, boxes: torch.Tensor, counts: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Tokens [T, D] of the regions that fill the slots.

        Args:
            pictures: [P, 3, S, S], object after object; each object's key picture first, then those of its track in
                time order.
            boxes: [P, 4], of each picture, in shares of its sides.
            counts: [M, 2] int64, an object's pictures and its slots; None is a slot a picture. Where there are fewer
                slots, the track's pictures are clustered and the one nearest each centre is taken; where there are
                more, the last is repeated.
        """
        size, patch = self.config.vision_config.image_size, self.config.vision_config.patch_size
        every = torch.arange(len(pictures), device=pictures.device)
        grid_HW = (size // patch, size // patch)
        tokens = self.region_encoder(self.level_features(pictures), boxes, every, grid_HW)
        if counts is None:
            return tokens
        chosen, start = [], 0
        for num_pictures, num_slots in counts.tolist():
            own = tokens[start : start + num_pictures]
            chosen.append(own[_filling(own, num_slots)])
            start += num_pictures
        return torch.cat(chosen)

    def embed_prompt(
        self, input_ids: torch.Tensor, vision: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Text embeddings with features in the places of the slots.

        Args:
            input_ids: [B, L]; every token of a picture, a video and a region is a slot of its own.
            vision: those of `images` [I, 3, S, S]; `video_features` [V, 100 + N, C]; `region_pictures` [P, 3, S, S],
                `region_boxes` [P, 4] and `region_counts` [M, 2] that there are, samples in order.
        Returns:
            [B, L, D]; and None, for positions that count on.
        Raises:
            ValueError: the number of a kind's slots is not that of its tokens.
        """
        config = self.config
        slots = input_ids >= config.text_config.vocab_size
        inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(slots, 0))
        filled: list[tuple[str, int, torch.Tensor]] = []
        if len(vision.get("images", ())):
            states = self.vision_tower(vision["images"], output_hidden_states=True).hidden_states
            tokens = self.multi_modal_projector(states[config.vision_feature_layer][:, 1:])
            filled.append(("picture", config.image_token_id, tokens.flatten(0, 1)))
        if len(vision.get("video_features", ())):
            tokens = self.multi_modal_projector(vision["video_features"].to(inputs_embeds.dtype))
            filled.append(("video", config.video_token_id, tokens.flatten(0, 1)))
        if len(vision.get("region_pictures", ())):
            tokens = self.region_tokens(vision["region_pictures"], vision["region_boxes"], vision.get("region_counts"))
            filled.append(("region", config.region_token_id, tokens))
        for kind, token_id, tokens in filled:
            places = input_ids == token_id
            if int(places.sum()) != len(tokens):
                raise ValueError(f"{int(places.sum())} {kind} slots in the text for {len(tokens)} {kind} tokens")
            inputs_embeds = inputs_embeds.masked_scatter(places[..., None], tokens.to(inputs_embeds.dtype))
        if int(slots.sum()) != sum(len(tokens) for *_, tokens in filled):
            raise ValueError("the text has slots that nothing was given for")
        return inputs_embeds, None

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        vision: Mapping[str, torch.Tensor] | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the native model, with `vision` as in `embed_prompt`."""
        if vision is not None and input_ids is not None and inputs_embeds is None:
            inputs_embeds, _ = self.embed_prompt(input_ids, vision)
            input_ids = None
        return super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **kwargs)


def _filling(tokens: torch.Tensor, num_slots: int) -> torch.Tensor:
    """Which of an object's regions fill its slots, in order: the key's, then those chosen of its track."""
    track = tokens[1:]
    if num_slots == 1 or not len(track):
        return torch.zeros(num_slots, dtype=torch.long, device=tokens.device)
    chosen = representatives(track, num_slots - 1) + 1
    padding = chosen[-1:].expand(num_slots - 1 - len(chosen))
    return torch.cat([chosen.new_zeros(1), chosen, padding])


class ArtemisForConditionalGeneration(_FanInInitialised, LlavaForConditionalGeneration):
    """The native LLaVA with slots: `forward(input_ids, vision=...)`, see `ArtemisModel.embed_prompt`."""

    config_class = ArtemisConfig

    def __init__(self, config: ArtemisConfig) -> None:
        # The parent's constructor would first build, and allocate, the model without regions.
        LlavaPreTrainedModel.__init__(self, config)
        self.model = ArtemisModel(config)
        self.lm_head = LanguageHead(config.text_config.hidden_size, config.text_config.vocab_size)
        self.post_init()


AutoModel.register(ArtemisConfig, ArtemisModel)
AutoModelForImageTextToText.register(ArtemisConfig, ArtemisForConditionalGeneration)

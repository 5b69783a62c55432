"""Artemis: transformers' LLaVA whose text has slots for a video's pooled features and for the regions of a track.

Shape letters: B samples, L text positions, D the language model's width, C the tower's, N patches, T tiles, F frames,
V videos.
Source: Artemis, NeurIPS 2024, sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as nnf
from transformers import AutoModel, AutoModelForImageTextToText, LlavaForConditionalGeneration, LlavaModel
from transformers.models.llava.modeling_llava import LlavaPreTrainedModel

from internvl_chat.model.captioning import Captioning, repeated
from internvl_chat.model.controls.box_adapter import init_added
from internvl_chat.model.controls.region_tokens import RegionEncoder, Regions
from internvl_chat.model.families.artemis.configuration import MAX_VIDEO_FRAMES, ArtemisConfig
from internvl_chat.model.label_loss import LanguageHead
from internvl_chat.vision import Vision


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
        if not init_added(module):
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

    def level_features(self, tiles: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What regions are read from: [T, N, C] for each level of `region_layers`, without the class token."""
        states = self._hidden_states(tiles)
        return tuple(states[layer][:, 1:] for layer in self.config.region_layers)

    def patch_features(self, tiles: torch.Tensor) -> torch.Tensor:
        """What pictures and videos are read from: [T, N, C] of one layer, without the class token."""
        return self._hidden_states(tiles)[self.config.vision_feature_layer][:, 1:]

    def _hidden_states(self, tiles: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # A frozen tower runs without autograd state.
        trained = any(parameter.requires_grad for parameter in self.vision_tower.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            return self.vision_tower(tiles, output_hidden_states=True).hidden_states

    def region_tokens(self, vision: Vision) -> torch.Tensor:
        """Tokens [slots, D] of the regions, read from the tiles that they lie in.

        Args:
            vision: `pixel_values` [T, 3, S, S], and for each tile what `Regions.of` says.
        """
        regions = Regions.of(vision["region_boxes"], vision["region_roles"], vision["region_slots"])
        used, picture_R = regions.tile_R.unique(return_inverse=True)
        levels = self.level_features(vision["pixel_values"][used])
        return regions.fill(self.region_encoder(levels, regions.boxes_R4, picture_R, self._grid_HW))

    @property
    def _grid_HW(self) -> tuple[int, int]:
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        return side, side

    def video_tokens(self, vision: Vision) -> torch.Tensor | None:
        """Tokens [V * (100 + N), D] of the videos, from pooled features or from frames; None where there are none."""
        if len(vision.get("video_features", ())):
            features = vision["video_features"]
        elif len(vision.get("video_frames", ())):
            starts = vision["video_starts"].nonzero()[:, 0].tolist()
            lengths = np.diff([*starts, len(vision["video_frames"])]).tolist()
            videos = self.patch_features(vision["video_frames"]).split(lengths)
            features = torch.cat([pooled_video(frames) for frames in videos])
        else:
            return None
        return self.multi_modal_projector(features.to(self.multi_modal_projector.linear_1.weight.dtype))

    def embed_prompt(self, input_ids: torch.Tensor, vision: Vision) -> tuple[torch.Tensor, None]:
        """Text embeddings with features in the places of the slots; positions count the tokens.

        Args:
            input_ids: [B, L]; every token of a picture, a video and a region is a slot of its own.
            vision: empty for text alone; else samples in order, of these what there is: `pixel_values` [T, 3, S, S],
                with `region_*` for each tile, and with `shown` [T], 1 where a tile is a picture of its own and not one
                of a video; `video_features` [V * (100 + N), C]; or `video_frames` [F, 3, S, S] with `video_starts`
                [F], 1 at a video's first frame.
        Returns:
            [B, L, D].
        Raises:
            ValueError: the number of a kind's slots is not that of its tokens.
        """
        config = self.config
        slots = (input_ids >= config.image_token_id) & (input_ids <= config.region_token_id)
        inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(slots, 0))
        filled: list[tuple[str, int, torch.Tensor]] = []
        if "shown" in vision and bool(vision["shown"].any()):
            tokens = self.multi_modal_projector(self.patch_features(vision["pixel_values"][vision["shown"] > 0]))
            filled.append(("picture", config.image_token_id, tokens.flatten(0, 1)))
        videos = self.video_tokens(vision)
        if videos is not None:
            filled.append(("video", config.video_token_id, videos))
        if "region_roles" in vision and bool((vision["region_roles"] > 0).any()):
            filled.append(("region", config.region_token_id, self.region_tokens(vision)))
        for kind, token_id, tokens in filled:
            places = input_ids == token_id
            if int(places.sum()) != len(tokens):
                raise ValueError(f"{int(places.sum())} {kind} slots in the text for {len(tokens)} {kind} tokens")
            inputs_embeds = inputs_embeds.masked_scatter(places[..., None], tokens.to(inputs_embeds.dtype))
        if int(slots.sum()) != sum(len(tokens) for *_, tokens in filled):
            raise ValueError("the text has slots that nothing was given for")
        return self._with_idle_parts(inputs_embeds, vision, {kind for kind, *_ in filled}), None

    def _with_idle_parts(self, inputs_embeds: torch.Tensor, vision: Vision, used: set[str]) -> torch.Tensor:
        """In training every rank runs, and has gradients of, the same layers, whatever its rows show."""
        if not self.training or not len(vision.get("pixel_values", ())):
            return inputs_embeds
        tile = vision["pixel_values"][:1]
        idle = inputs_embeds.new_zeros(())
        if not used & {"picture", "video"}:
            idle = idle + 0 * self.multi_modal_projector(self.patch_features(tile)).sum()
        if "region" not in used:
            levels = self.level_features(tile)
            nowhere = torch.zeros(1, 4, device=tile.device)
            idle = idle + 0 * self.region_encoder(levels, nowhere, nowhere[:, 0].long(), self._grid_HW).sum()
        return inputs_embeds + idle.to(inputs_embeds.dtype)

    def spread(self, visions: Sequence[Vision], rows: Sequence[int]) -> Vision:
        """What prompts show that share clips; nothing is read once for several."""
        return repeated(visions, rows)


class ArtemisForConditionalGeneration(Captioning, _FanInInitialised, LlavaForConditionalGeneration):
    """The native LLaVA with slots: `forward(input_ids, vision=...)`, see `ArtemisModel.embed_prompt`."""

    config_class = ArtemisConfig

    def __init__(self, config: ArtemisConfig) -> None:
        # The parent's constructor would first build, and allocate, the model without regions.
        LlavaPreTrainedModel.__init__(self, config)
        self.model = ArtemisModel(config)
        self.lm_head = LanguageHead(config.text_config.hidden_size, config.text_config.vocab_size)
        self.post_init()


Captioner = ArtemisForConditionalGeneration
AutoModel.register(ArtemisConfig, ArtemisModel)
AutoModelForImageTextToText.register(ArtemisConfig, ArtemisForConditionalGeneration)

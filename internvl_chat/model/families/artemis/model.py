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
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.models.llava.modeling_llava import LlavaPreTrainedModel

from internvl_chat.model.captioning import Captioning, repeated
from internvl_chat.model.controls.box_adapter import init_added
from internvl_chat.model.controls.region_tokens import RegionEncoder, Regions
from internvl_chat.model.families.artemis.configuration import MAX_VIDEO_FRAMES, ArtemisConfig
from internvl_chat.model.label_loss import LanguageHead
from internvl_chat.vision import Vision

# Frames of videos that a frozen tower is shown together.
_TILES_AT_A_TIME = 64


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
    """The native LLaVA without its head, from stage 3 on with a region encoder on the tower's levels."""

    config_class = ArtemisConfig

    def __init__(self, config: ArtemisConfig) -> None:
        super().__init__(config)
        if config.region_tokens:
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
        return self._patch_states(tiles, self.config.region_layers)

    def patch_features(self, tiles: torch.Tensor) -> torch.Tensor:
        """What pictures and videos are read from: [T, N, C] of one layer, without the class token."""
        return self._patch_states(tiles, (self.config.vision_feature_layer,))[0]

    def _patch_states(self, tiles: torch.Tensor, layers: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """[T, N, C] of these of the tower's states; of many tiles a frozen tower never holds all states at a time."""
        trained = any(parameter.requires_grad for parameter in self.vision_tower.parameters())
        # Under ZeRO-3 every rank calls each layer as often as the others.
        parts = [tiles] if trained or is_deepspeed_zero3_enabled() else tiles.split(_TILES_AT_A_TIME)
        read = []
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            for part in parts:
                states = self.vision_tower(part, output_hidden_states=True).hidden_states
                read.append([states[layer][:, 1:] for layer in layers])
        return tuple(torch.cat(of_layer) for of_layer in zip(*read, strict=True))

    def region_tokens(self, vision: Vision) -> torch.Tensor:
        """Tokens [slots, D] of the regions, read from the tiles that they lie in.

        Args:
            vision: `pixel_values` [T, 3, S, S], and for each tile what `Regions.of` says.
        """
        return self.visual_tokens(vision)["region"]

    def video_tokens(self, vision: Vision) -> torch.Tensor:
        """Tokens [V * (100 + N), D] of the videos, from pooled features or from frames."""
        return self.visual_tokens(vision)["video"]

    def visual_tokens(self, vision: Vision) -> dict[str, torch.Tensor]:
        """Tokens [n, D] of pictures, videos and regions, by kind; none where the samples have none of a kind.

        Tower, projector and region encoder are called once each. In training that is so whatever is shown: ranks that
        share weights call, and have gradients of, the same layers.

        Args:
            vision: as in `embed_prompt`; not empty.
        """
        device = self.multi_modal_projector.linear_1.weight.device
        tiles, frames = (vision.get(name, torch.empty(0)) for name in ("pixel_values", "video_frames"))
        shown = (
            vision["shown"].nonzero()[:, 0] if "shown" in vision else torch.empty(0, dtype=torch.long, device=device)
        )
        regions = self._regions_of(vision)
        used = shown if regions is None else torch.cat([shown, regions.tile_R])
        if self.training and not len(used):
            used = used.new_zeros(1)
        used, place = used.unique(return_inverse=True)
        config = self.config
        levels = config.region_layers if regions is not None else ()
        seen = [part for part in (tiles[used] if len(used) else tiles[:0], frames) if len(part)]
        patches, *states = (
            self._patch_states(torch.cat(seen), (config.vision_feature_layer, *levels))
            if seen
            else [torch.empty(0, config.image_seq_length, config.vision_config.hidden_size, device=device)]
        )
        pictures = patches[place[: len(shown)]].flatten(0, 1)
        videos = torch.cat([pictures[:0], *self._videos(vision, patches[len(used) :])])
        dtype = self.multi_modal_projector.linear_1.weight.dtype
        projected = self.multi_modal_projector(torch.cat([pictures.to(dtype), videos.to(dtype)]))
        tokens = {"picture": projected[: len(pictures)], "video": projected[len(pictures) :]}
        if regions is not None:
            of_tiles = [state[: len(used)] for state in states]
            encoded = self.region_encoder(of_tiles, regions.boxes_R4, place[len(shown) :], self._grid_HW)
            # What is of nothing stays in the graph, and fills no slot.
            tokens["region"] = regions.fill(encoded) if regions.tracks else encoded[:0]
        return tokens

    def _videos(self, vision: Vision, patches_FNC: torch.Tensor) -> list[torch.Tensor]:
        """Each video's features [100 + N, C]: as they are stored, or pooled from the patches of its frames."""
        features = vision.get("video_features", patches_FNC[:0])
        stored = list(features.split(self.config.video_seq_length)) if len(features) else []
        pooled = []
        if len(patches_FNC):
            lengths = np.diff([*vision["video_starts"].nonzero()[:, 0].tolist(), len(patches_FNC)]).tolist()
            pooled = [pooled_video(video) for video in patches_FNC.split(lengths)]
        if not (stored and pooled):
            return stored or pooled
        return [(stored if is_stored else pooled).pop(0) for is_stored in vision["video_is_stored"].tolist()]

    def _regions_of(self, vision: Vision) -> Regions | None:
        """The regions of the samples; in training, where they have none, one of nothing."""
        if "region_roles" in vision and bool((vision["region_roles"] > 0).any()):
            return Regions.of(vision["region_boxes"], vision["region_roles"], vision["region_slots"])
        if self.training and self.config.region_tokens:
            return Regions.nowhere(self.multi_modal_projector.linear_1.weight.device)
        return None

    @property
    def _grid_HW(self) -> tuple[int, int]:
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        return side, side

    def embed_prompt(self, input_ids: torch.Tensor, vision: Vision) -> tuple[torch.Tensor, None]:
        """Text embeddings with features in the places of the slots; positions count the tokens.

        Args:
            input_ids: [B, L]; every token of a picture, a video and a region is a slot of its own.
            vision: empty for text alone; else samples in order, of these what there is: `pixel_values` [T, 3, S, S],
                with `region_*` for each tile, and with `shown` [T], 1 where a tile is a picture of its own and not one
                of a video; `video_features` [V * (100 + N), C]; or `video_frames` [F, 3, S, S] with `video_starts`
                [F], 1 at a video's first frame; where there are both, `video_is_stored` [V], 1 where a video has the
                former.
        Returns:
            [B, L, D].
        Raises:
            ValueError: the number of a kind's slots is not that of its tokens.
        """
        config = self.config
        ids = {"picture": config.image_token_id, "video": config.video_token_id, "region": config.region_token_id}
        slots = (input_ids >= config.image_token_id) & (input_ids <= config.region_token_id)
        inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(slots, 0))
        tokens_of = self.visual_tokens(vision) if vision else {}
        for kind, tokens in tokens_of.items():
            places = input_ids == ids[kind]
            if int(places.sum()) != len(tokens):
                raise ValueError(f"{int(places.sum())} {kind} slots in the text for {len(tokens)} {kind} tokens")
            inputs_embeds = inputs_embeds.masked_scatter(places[..., None], tokens.to(inputs_embeds.dtype))
        if int(slots.sum()) != sum(int((input_ids == ids[kind]).sum()) for kind in tokens_of):
            raise ValueError("the text has slots that nothing was given for")
        return inputs_embeds, None

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

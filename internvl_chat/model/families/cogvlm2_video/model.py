"""CogVLM2-Video as a native model: timm's EVA tower, a gated projector, and transformers' own Llama.

Shape letters: B samples, L text positions, D the language model's width, F frames of all samples together, V tokens of
a frame, C the tower's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as nnf
from torch import nn
from transformers import AutoModel, AutoModelForImageTextToText, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from internvl_chat.model.captioning import Captioning, repeated
from internvl_chat.model.families.cogvlm2_video.configuration import (
    DOWNSAMPLE,
    CogVLM2VideoConfig,
    CogVLM2VideoVisionConfig,
)
from internvl_chat.model.label_loss import LanguageHead
from internvl_chat.model.shared_prompt import CACHE_NAME
from internvl_chat.vision import Vision

_TOWER = "eva02_enormous_patch14_clip_224"


def build_tower(config: CogVLM2VideoVisionConfig) -> nn.Module:
    """EVA2-CLIP's tower [F, 3, S, S] -> [F, 1 + patches, C], class token first, with no norm behind its last layer."""
    width = config.hidden_size
    tower = timm.create_model(
        _TOWER,
        img_size=config.image_size,
        patch_size=config.patch_size,
        in_chans=config.num_channels,
        embed_dim=width,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        mlp_ratio=config.intermediate_size / width,
        norm_layer=partial(nn.LayerNorm, eps=config.layer_norm_eps),
        qkv_fused=False,
        use_post_transformer_norm=False,
        num_classes=0,
        global_pool="",
    )
    blocks: Any = tower.blocks
    for block in blocks:
        # It shifts all scores of a query alike, which softmax cancels, so timm has none; the original's files do.
        block.attn.k_proj = nn.Linear(width, width)
    return tower


def position_ids_of(is_visual: torch.Tensor) -> torch.Tensor:
    """Positions of a prompt: those inside an unbroken run of visual tokens share one, all others count on.

    A run's first and last token count as text, so that with one frame a run only its patches share.

    Args:
        is_visual: [B, L] bool.
    Returns:
        [B, L] int64, from 0.
    Source: CogVLM (arXiv:2311.03079), section 2.1, as CogVLM2-Video's checkpoint was trained.
    """
    walled = nnf.pad(is_visual, (1, 1))
    is_inside = walled[:, :-2] & is_visual & walled[:, 2:]
    moves_on = ~(is_inside[:, 1:] & is_inside[:, :-1])
    return nnf.pad(moves_on.long().cumsum(-1), (1, 0))


class GatedProjector(nn.Module):
    """From the tower's patches to a frame's tokens: joined two by two, widened, gated, and enclosed by two marks."""

    def __init__(self, config: CogVLM2VideoConfig) -> None:
        super().__init__()
        seen, width = config.vision_config.hidden_size, config.text_config.hidden_size
        inner = config.text_config.intermediate_size
        self.grid = config.vision_config.patches_per_side
        self.downsample = nn.Conv2d(seen, seen, kernel_size=DOWNSAMPLE, stride=DOWNSAMPLE)
        self.linear = nn.Linear(seen, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)
        self.begin_of_frame = nn.Parameter(torch.zeros(1, 1, width))
        self.end_of_frame = nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, patches_FNC: torch.Tensor) -> torch.Tensor:
        """[F, N, C] without class token, N = grid * grid row-major, to [F, V, D]."""
        patches_FChw = self.downsample(patches_FNC.transpose(1, 2).unflatten(2, (self.grid, self.grid)))
        hidden_FVD = nnf.gelu(self.norm(self.linear(patches_FChw.flatten(2).transpose(1, 2))))
        tokens_FVD = self.down_proj(nnf.silu(self.gate_proj(hidden_FVD)) * self.up_proj(hidden_FVD))
        begin, end = (mark.expand(len(tokens_FVD), -1, -1) for mark in (self.begin_of_frame, self.end_of_frame))
        return torch.cat([begin, tokens_FVD, end], dim=1)


class CogVLM2VideoPreTrainedModel(PreTrainedModel):
    """What transformers asks of a model of this family."""

    config_class = CogVLM2VideoConfig
    base_model_prefix = "model"
    input_modalities = ("video", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["LlamaDecoderLayer", "EvaBlockPostNorm"]
    _skip_keys_device_placement = [CACHE_NAME]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.vision_config.initializer_range
        if isinstance(module, GatedProjector):
            init.normal_(module.begin_of_frame, mean=0.0, std=std)
            init.normal_(module.end_of_frame, mean=0.0, std=std)
        elif hasattr(module, "pos_embed") and hasattr(module, "cls_token"):
            init.normal_(module.pos_embed, mean=0.0, std=std)
            init.normal_(module.cls_token, mean=0.0, std=std)
        else:
            super()._init_weights(module)


class CogVLM2VideoModel(CogVLM2VideoPreTrainedModel):
    """Tower, projector and language model, without the head."""

    def __init__(self, config: CogVLM2VideoConfig) -> None:
        super().__init__(config)
        self.vision_tower = build_tower(config.vision_config)
        self.multi_modal_projector = GatedProjector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def frame_tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """[F, 3, S, S] to the tokens [F, V, D] that stand for each frame in the prompt."""
        return self.multi_modal_projector(self.vision_tower(pixel_values)[:, 1:])

    def embed_prompt(self, input_ids: torch.Tensor, vision: Vision) -> tuple[torch.Tensor, torch.Tensor]:
        """Text embeddings with the frames' tokens in the places of `image_token_id`, and their positions.

        Args:
            input_ids: [B, L], padded, if at all, on the right and with another token.
            vision: `pixel_values` [F, 3, S, S], frames of all samples in order; empty for text alone.
        Returns:
            [B, L, D] and [B, L].
        Raises:
            ValueError: there are not as many places as the frames have tokens.
        """
        inputs_embeds = self.get_input_embeddings()(input_ids)
        is_visual = input_ids == self.config.image_token_id
        positions = position_ids_of(is_visual)
        if not vision:
            return inputs_embeds, positions
        tokens = self.frame_tokens(vision["pixel_values"]).to(inputs_embeds.dtype)
        num_places = int(is_visual.sum())
        if not num_places:
            # A row of text alone brings one blank frame: every rank runs, and has gradients of, the same layers.
            return inputs_embeds + 0 * tokens.sum(), positions
        if num_places != tokens.shape[:2].numel():
            raise ValueError(f"{num_places} places in the prompt for {tokens.shape[:2].numel()} tokens of frames")
        return inputs_embeds.masked_scatter(is_visual[..., None], tokens), positions

    def spread(self, visions: Sequence[Vision], rows: Sequence[int]) -> Vision:
        """What prompts show that share clips.

        Args:
            visions: `pixel_values` of each clip; empty for text alone.
            rows: the clip of each prompt.
        """
        return repeated(visions, rows)

    def forward(self, input_ids: torch.Tensor | None = None, **kwargs: Any) -> BaseModelOutputWithPast:
        """The language model alone; frames come in through `embed_prompt`."""
        return self.language_model(input_ids=input_ids, **kwargs)


class _CogVLM2VideoHead(CogVLM2VideoPreTrainedModel, GenerationMixin):
    """The language model with its head, as transformers' own classes are called."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: CogVLM2VideoConfig) -> None:
        super().__init__(config)
        self.model = CogVLM2VideoModel(config)
        self.lm_head = LanguageHead(config.text_config.hidden_size, config.text_config.vocab_size)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(self, *, input_ids: Any = None, labels: Any = None, logits_to_keep: int = 0, **kwargs: Any) -> Any:
        """Logits [B, L, vocabulary], and with `labels` [B, L] the mean loss of the supervised tokens.

        Args:
            logits_to_keep: how many last positions have logits, 0 for all.
        """
        outputs = self.model(input_ids=input_ids, **kwargs)
        logits = self.lm_head(outputs.last_hidden_state[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.text_config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE_NAME: getattr(outputs, CACHE_NAME)})


class CogVLM2VideoForConditionalGeneration(Captioning, _CogVLM2VideoHead):
    """CogVLM2-Video with its head: `forward(..., vision)`, `generate(..., vision)`, and the loss of packed rows."""


Captioner = CogVLM2VideoForConditionalGeneration

AutoModel.register(CogVLM2VideoConfig, CogVLM2VideoModel)
AutoModelForImageTextToText.register(CogVLM2VideoConfig, CogVLM2VideoForConditionalGeneration)

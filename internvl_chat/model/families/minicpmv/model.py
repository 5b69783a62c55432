"""MiniCPM-Llama3-V 2.5: transformers' Idefics2 vision tower, a resampler, and Llama.

Shape letters: B samples, L text positions, D the language model's width, F pictures, N patches of all of them, P of the
longest, Q embeddings of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoModelForImageTextToText, LlavaForConditionalGeneration, LlavaModel
from transformers import initialization as init
from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer
from transformers.models.llava.modeling_llava import LlavaPreTrainedModel

from internvl_chat.model.captioning import Captioning, repeated
from internvl_chat.model.families.minicpmv.configuration import MiniCPMVConfig
from internvl_chat.model.families.minicpmv.resampler import Resampler
from internvl_chat.model.label_loss import LanguageHead
from internvl_chat.vision import Vision


class _ResamplerInitialised(LlavaPreTrainedModel):
    """Draws the resampler's own parameters as the original does; all others as transformers does."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Resampler):
            init.trunc_normal_(module.query, std=0.02)
            init.normal_(module.proj, std=module.proj.shape[0] ** -0.5)
        else:
            super()._init_weights(module)


class MiniCPMVModel(_ResamplerInitialised, LlavaModel):
    """The parts without a head."""

    config_class = MiniCPMVConfig

    def __init__(self, config: MiniCPMVConfig) -> None:
        # The parent's constructor would look for a tower that transformers has no bare class of, and make a projector.
        LlavaPreTrainedModel.__init__(self, config)
        self.vision_tower = Idefics2VisionTransformer._from_config(config.vision_config)
        self.multi_modal_projector = Resampler(
            config.image_seq_length, config.vision_config.hidden_size, config.text_config.hidden_size
        )
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def picture_embeddings(self, patches: torch.Tensor, grids_F2: torch.Tensor) -> torch.Tensor:
        """What the language model is shown of pictures.

        Args:
            patches: [N, 3, S, S], picture after picture, row by row.
            grids_F2: rows and columns of each picture's patches.
        Returns:
            [F, Q, D].
        """
        counts = grids_F2.prod(1)
        padded = pad_sequence(patches.split(counts.tolist()), batch_first=True)
        # Side by side: the tower was trained with a mask of one row, which numbers the patches along it.
        in_row = padded.permute(0, 2, 3, 1, 4).flatten(3)
        places = torch.arange(padded.shape[1], device=patches.device)
        is_patch = places < counts[:, None]
        seen = self.vision_tower(in_row, patch_attention_mask=is_patch[:, None]).last_hidden_state
        return self.multi_modal_projector(seen, grids_F2)

    def embed_prompt(self, input_ids: torch.Tensor, vision: Vision) -> tuple[torch.Tensor, None]:
        """Text embeddings with the pictures' in the places of `<unk>`; positions count the tokens.

        Args:
            input_ids: [B, L].
            vision: `patches` [N, 3, S, S] and `grids` [F, 2] of all samples' pictures in order; empty for text alone.
        Returns:
            [B, L, D].
        Raises:
            ValueError: the number of `<unk>` tokens is not that of the pictures' embeddings.
        """
        inputs_embeds = self.get_input_embeddings()(input_ids)
        if not vision:
            return inputs_embeds, None
        shown = self.picture_embeddings(vision["patches"], vision["grids"]).to(inputs_embeds.dtype)
        places = input_ids == self.config.image_token_id
        if not bool(places.any()):
            # A row of text alone brings one blank picture: every rank runs, and has gradients of, the same layers.
            return inputs_embeds + 0 * shown.sum(), None
        if int(places.sum()) != shown.shape[:2].numel():
            raise ValueError(
                f"{int(places.sum())} places in the text for {shown.shape[:2].numel()} embeddings of pictures"
            )
        return inputs_embeds.masked_scatter(places[..., None], shown), None

    def spread(self, visions: Sequence[Vision], rows: Sequence[int]) -> Vision:
        """What prompts show that share clips; nothing is read once for several."""
        return repeated(visions, rows)


class MiniCPMVForConditionalGeneration(Captioning, _ResamplerInitialised, LlavaForConditionalGeneration):
    """LLaVA's generation around `MiniCPMVModel`: `forward(input_ids, vision=...)`, see its `embed_prompt`."""

    config_class = MiniCPMVConfig

    def __init__(self, config: MiniCPMVConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.model = MiniCPMVModel(config)
        self.lm_head = LanguageHead(config.text_config.hidden_size, config.text_config.vocab_size)
        self.post_init()


Captioner = MiniCPMVForConditionalGeneration
AutoModel.register(MiniCPMVConfig, MiniCPMVModel)
AutoModelForImageTextToText.register(MiniCPMVConfig, MiniCPMVForConditionalGeneration)

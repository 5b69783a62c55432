"""What the captioners of all families share: the loss of a packed row, and prompts that are embedded once.

A captioner is called with `input_ids` and `vision`, its family's tensors by name; everything here stands behind its
`model.embed_prompt`. Shape letters: B samples, L text positions, N supervised tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from internvl_chat.contracts import SharedPrefix
from internvl_chat.model.shared_prefix import PackedAttention
from internvl_chat.vision import Vision, joined


def packed_loss(
    captioner: PreTrainedModel,
    input_ids: torch.Tensor,
    vision: Vision,
    position_ids: torch.Tensor,
    layout: Sequence[SharedPrefix],
    target_positions: torch.Tensor,
    target_ids: torch.Tensor,
    loss_weights: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    **_: Any,
) -> torch.Tensor:
    """The loss of a packed row; needs `use_shared_prefix_attention`. Logits exist only where a token is supervised.

    What else `forward` is given, by PEFT for one, means nothing to a packed row.

    Args:
        input_ids, position_ids: [1, L].
        layout: the samples of the row.
        target_positions, target_ids, loss_weights: [1, N], see `PackedFeatures`.
        num_items_in_batch: what the summed loss is divided by; None is the sum of `loss_weights`.
    """
    inputs_embeds, _ = captioner.model.embed_prompt(input_ids, vision)
    hidden = captioner.model.language_model(
        inputs_embeds=inputs_embeds,
        position_ids=position_ids,
        packed=PackedAttention.of(layout, target_positions[0]),
        # A mask of four axes is taken as it is: none of L x L is built.
        attention_mask=torch.empty(1, 1, 0, 0, device=input_ids.device),
        use_cache=False,
    ).last_hidden_state
    loss = captioner.lm_head(hidden[0], target_ids[0], loss_weights[0])
    return loss / (loss_weights.sum() if num_items_in_batch is None else num_items_in_batch)


def embedded(
    captioner: PreTrainedModel, input_ids: torch.Tensor, vision: Vision, given: Mapping[str, Any]
) -> dict[str, Any]:
    """What `forward` and `generate` are given in place of `input_ids` [B, L] and `vision`, beside `given`.

    Position ids are the family's, where it has its own and none are given.
    """
    inputs_embeds, position_ids = captioner.model.embed_prompt(input_ids, vision)
    if position_ids is None or given.get("position_ids") is not None:
        return {**given, "inputs_embeds": inputs_embeds}
    return {**given, "inputs_embeds": inputs_embeds, "position_ids": position_ids}


class Captioning:
    """`forward` and `generate` of a captioner, in front of transformers' class for its language model.

    The class behind it takes `input_ids` or `inputs_embeds`; its `model` and `lm_head` are what the functions above ask
    for.
    """

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        vision: Vision | None = None,
        position_ids: torch.Tensor | None = None,
        *,
        layout: Sequence[SharedPrefix] | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        """As the class behind it; or, with `layout`, an output that holds the loss of a packed row, see `packed_loss`.

        `position_ids` and `logits_to_keep` are named here because `generate` asks for them by the signature.
        """
        captioner: Any = self
        behind: Any = super()
        if layout is not None and input_ids is not None and position_ids is not None:
            loss = packed_loss(captioner, input_ids, vision or {}, position_ids, layout, **kwargs)
            return CausalLMOutputWithPast(loss=loss)
        given = {**kwargs, "position_ids": position_ids, "logits_to_keep": logits_to_keep}
        if vision is None or input_ids is None:
            return behind.forward(input_ids=input_ids, **given)
        return behind.forward(**embedded(captioner, input_ids, vision, given))

    def generate(
        self,
        inputs: torch.Tensor | None = None,
        *,
        input_ids: torch.Tensor | None = None,
        vision: Vision | None = None,
        **kwargs: Any,
    ) -> Any:
        """`GenerationMixin.generate` for prompts with pictures.

        The prompt is embedded once, before beams or candidates are spread out: the generic code would repeat the
        pictures one by one and so mix them up between beams. As everywhere in transformers, what is returned begins
        with the prompt's token ids.
        """
        captioner: Any = self
        behind: Any = super()
        input_ids = inputs if input_ids is None else input_ids
        if vision is None or input_ids is None:
            return behind.generate(input_ids, **kwargs)
        with torch.no_grad():
            return behind.generate(input_ids, **embedded(captioner, input_ids, vision, kwargs))


def repeated(visions: Sequence[Vision], rows: Sequence[int]) -> Vision:
    """The tensors of some prompts, each of which shows one of the clips; what `spread` does where nothing is shared.

    Args:
        rows: the clip of each prompt.
    """
    return joined(visions[row] for row in rows)

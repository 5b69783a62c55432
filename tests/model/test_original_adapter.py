"""The adapters against the original implementation: visual tokens that it computed, from its own weights.

The original normalises over the patches instead of the channels, which only ran because C = H * W. Here, and only here,
the norm does the same, so that everything else can be compared number by number.
"""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from internvl_chat.model.controls.box_adapter import ChannelRMSNorm
from internvl_chat.model.families.internvl import IntentVCNetConfig, IntentVCNetForConditionalGeneration
from tests.helpers import shared, tiny_config

VIT_WIDTH, VIT_LAYERS, LLM_WIDTH, NUM_ADAPTERS = 64, 7, 48, 5

# Names of the original, in the order in which they are replaced -> ours.
RENAMED = {
    "vision_model.encoder.box_attentions.": "model.vision_tower.box_adapters.",
    "vision_model.encoder.layers.": "model.vision_tower.encoder.layer.",
    "vision_model.": "model.vision_tower.",
    "mlp1.0.": "model.multi_modal_projector.layer_norm.",
    "mlp1.1.": "model.multi_modal_projector.linear_1.",
    "mlp1.3.": "model.multi_modal_projector.linear_2.",
    "embeddings.class_embedding": "embeddings.cls_token",
    "embeddings.position_embedding": "embeddings.position_embeddings",
    "embeddings.patch_embedding.": "embeddings.patch_embeddings.projection.",
    ".attn.proj.": ".attention.projection_layer.",
    ".ls1": ".lambda_1",
    ".ls2": ".lambda_2",
    ".attention.key_conv.": ".key.",
    ".attention.query_conv.": ".query.",
    ".attention.value_conv.": ".value.",
    ".attn_out.": ".attention_out.",
    ".ffn.dwconv.": ".ffn_depthwise.",
    ".ffn.project_in.": ".ffn_in.",
    ".ffn.project_out.": ".ffn_out.",
    ".roi_mlp.0.": ".roi_conv.",
    ".roi_mlp.2.": ".roi_proj.",
}


def converted(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """ViT, projector and adapters of an original checkpoint under our names."""
    ours: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if name.startswith("language_model."):
            continue
        norms = ("attention_norm", "ffn_norm") if "box_attentions" in name else ("layernorm_before", "layernorm_after")
        for old, new in {**RENAMED, ".norm1.": f".{norms[0]}.", ".norm2.": f".{norms[1]}."}.items():
            name = name.replace(old, new)
        if ".attn.qkv." in name:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                ours[name.replace("attn.qkv", f"attention.{part}_proj")] = rows
        else:
            ours[name] = tensor
    return ours


def norm_over_patches(self: ChannelRMSNorm, tokens: torch.Tensor) -> torch.Tensor:
    swapped = tokens.transpose(1, 2)
    normed = swapped * torch.rsqrt(swapped.square().mean(-1, keepdim=True) + self.eps)
    return (self.weight * normed).transpose(1, 2)


def test_visual_tokens_are_those_of_the_original_but_for_its_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared("parity/intentvcnet_multilayer_qwen2")
    case = load_file(folder / "case.safetensors")
    vision = {
        "hidden_size": VIT_WIDTH,
        "num_hidden_layers": VIT_LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 160,
        "image_size": [112, 112],
        "patch_size": [14, 14],
    }
    text = {"hidden_size": LLM_WIDTH, "num_attention_heads": 6, "num_hidden_layers": 1, "vocab_size": 320}
    base = tiny_config(vision=vision, text=text)
    model = IntentVCNetForConditionalGeneration(IntentVCNetConfig.from_base(base, NUM_ADAPTERS)).eval()
    weights = {}
    own = model.state_dict()
    for name, tensor in converted(load_file(folder / "checkpoint" / "model.safetensors")).items():
        assert name in own, name
        weights[name] = tensor.reshape(own[name].shape)
    missing = [name for name in own if name not in weights and "language_model" not in name and "lm_head" not in name]
    assert missing == []
    model.load_state_dict(weights, strict=False)

    monkeypatch.setattr(ChannelRMSNorm, "forward", norm_over_patches)
    with torch.no_grad():
        arguments = {"pixel_values": case["pixel_values"], "return_dict": True}
        boxed = model.model.get_image_features(**arguments, boxes=case["bboxes"]).pooler_output
        plain = model.model.get_image_features(**arguments).pooler_output
    expected = case["expected_visual_tokens"]
    torch.testing.assert_close(boxed, expected, rtol=0, atol=2e-5)
    assert float((plain - expected).abs().max()) > 1e-2

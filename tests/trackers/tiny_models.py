"""Tiny video segmentation models with random weights, one a kind that `track` takes, saved as real ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    EdgeTamVideoConfig,
    EdgeTamVideoModel,
    PreTrainedModel,
    Sam2ImageProcessor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoVideoProcessor,
    Sam3ImageProcessor,
    Sam3TrackerVideoConfig,
    Sam3TrackerVideoModel,
    Sam3TrackerVideoProcessor,
    Sam3VideoConfig,
    Sam3VideoModel,
)

from tests.helpers import randomise

SIDE_PX, WIDTH, MEMORIES, POINTERS = 64, 128, 3, 5
MEMORY = {
    "memory_attention_hidden_size": WIDTH,
    "memory_attention_num_layers": 1,
    "memory_encoder_hidden_size": WIDTH,
    "mask_downsampler_embed_dim": WIDTH,
    "memory_fuser_embed_dim": WIDTH,
    "memory_fuser_intermediate_dim": 44,
    "memory_fuser_num_layers": 1,
    "num_maskmem": MEMORIES,
    "max_object_pointers_in_encoder": POINTERS,
}
DECODER = {"hidden_size": WIDTH, "mlp_dim": 40, "num_attention_heads": 4, "iou_head_hidden_dim": 28}
# What all three of them have, and the grids that their towers see.
FOLLOWING: dict[str, Any] = {
    "image_size": SIDE_PX,
    "prompt_encoder_config": {"hidden_size": WIDTH, "image_size": SIDE_PX, "patch_size": 16},
    "mask_decoder_config": DECODER,
    **MEMORY,
}
GRIDS = [[SIDE_PX // k, SIDE_PX // k] for k in (4, 8, 16)]


def tiny_sam2() -> Sam2VideoModel:
    """A SAM 2 with every part of the real one."""
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 12,
        "image_size": [SIDE_PX, SIDE_PX],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [12, 24, 48, 96],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [3, 3],
    }
    vision: dict[str, Any] = {"model_type": "sam2_vision_model", "backbone_config": backbone, "fpn_hidden_size": WIDTH}
    vision |= {"backbone_channel_list": [96, 48, 24, 12], "backbone_feature_sizes": GRIDS}
    config = Sam2VideoConfig(
        vision_config=vision,
        memory_attention_feed_forward_hidden_size=36,
        memory_attention_rope_feat_sizes=GRIDS[2],
        **FOLLOWING,
    )
    return _seeing(Sam2VideoModel(config), seed=5)


def tiny_edgetam() -> EdgeTamVideoModel:
    """An EdgeTAM whose tower is one of timm's test networks; its memories are squeezed into 16 + 16 latents."""
    timm = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    backbone: dict[str, Any] = {"model_type": "timm_wrapper", "architecture": "test_convnext", "num_classes": 2}
    backbone["model_args"] = timm
    vision: dict[str, Any] = {"model_type": "edgetam_vision_model", "backbone_config": backbone}
    vision |= {"fpn_hidden_size": WIDTH, "backbone_channel_list": [64, 48, 32, 24], "backbone_feature_sizes": GRIDS}
    config = EdgeTamVideoConfig(
        vision_config=vision,
        memory_attention_mlp_hidden_size=36,
        memory_attention_rope_feat_sizes=GRIDS[2],
        memory_attention_rope_k_sizes=[4, 4],
        perceiver_resampler_num_latents=16,
        perceiver_resampler_num_latents_2d=16,
        perceiver_resampler_mlp_intermediate_size=24,
        perceiver_resampler_num_layers=1,
        **FOLLOWING,
    )
    return _seeing(EdgeTamVideoModel(config), seed=2)


def tiny_sam3() -> Sam3VideoModel:
    """A whole SAM 3 as it is published: the detector that reads texts, and the tracker on the same tower."""
    vit: dict[str, Any] = {"model_type": "sam3_vit_model", "hidden_size": 24, "intermediate_size": 36}
    vit |= {"num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE_PX, "patch_size": 16}
    vit |= {"window_size": 2, "global_attn_indexes": [1], "pretrain_image_size": 32}
    vision = {"model_type": "sam3_vision_model", "backbone_config": vit, "fpn_hidden_size": WIDTH}
    vision["backbone_feature_sizes"] = GRIDS
    small = {"hidden_size": WIDTH, "num_layers": 1, "num_attention_heads": 4, "intermediate_size": 20}
    text = {"model_type": "clip_text_model", "vocab_size": 40, "hidden_size": 20, "intermediate_size": 24}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8, "projection_dim": 12}
    detector = {
        "vision_config": vision,
        "text_config": text,
        "geometry_encoder_config": small,
        "detr_encoder_config": small,
        "detr_decoder_config": {**small, "num_queries": 6},
        "mask_decoder_config": {"hidden_size": WIDTH, "num_attention_heads": 4},
    }
    tracker = Sam3TrackerVideoConfig(
        vision_config=vision,
        memory_attention_feed_forward_hidden_size=36,
        **FOLLOWING,
    )
    config = Sam3VideoConfig(detector_config=detector, tracker_config=tracker.to_dict(), low_res_mask_size=16)
    return _seeing(Sam3VideoModel(config), seed=1)


def _seeing(model: PreTrainedModel, seed: int) -> Any:
    """The model with weights drawn anew, by which it believes to see what it was given, and somewhere."""
    randomise(model.parameters(), std=0.2, seed=seed)
    with torch.no_grad():
        getattr(model, "tracker_model", model).mask_decoder.pred_obj_score_head.proj_out.bias += 1
    return model.eval()


def write_sam2(folder: Path) -> Path:
    """A tiny SAM 2 with its processor."""
    tiny_sam2().save_pretrained(folder)
    return _with_sam2_processor(folder)


def write_edgetam(folder: Path) -> Path:
    """A tiny EdgeTAM with SAM 2's processor, as it is published."""
    tiny_edgetam().save_pretrained(folder)
    return _with_sam2_processor(folder)


def write_sam3(folder: Path) -> Path:
    """A tiny whole SAM 3; its text side's tokenizer is left out, since boxes need none."""
    tiny_sam3().save_pretrained(folder)
    return _with_sam3_processor(folder)


def write_sam3_tracker(whole: Path, folder: Path) -> Path:
    """The tracker out of a whole SAM 3, by itself."""
    Sam3TrackerVideoModel.from_pretrained(whole).save_pretrained(folder)
    return _with_sam3_processor(folder)


def _with_sam2_processor(folder: Path) -> Path:
    size = {"height": SIDE_PX, "width": SIDE_PX}
    images = Sam2ImageProcessor(size=size, mask_size={"height": SIDE_PX // 4, "width": SIDE_PX // 4})
    Sam2VideoProcessor(images, Sam2VideoVideoProcessor(size=size), target_size=SIDE_PX).save_pretrained(folder)
    return folder


def _with_sam3_processor(folder: Path) -> Path:
    size = {"height": SIDE_PX, "width": SIDE_PX}
    images = Sam3ImageProcessor(size=size, mask_size={"height": SIDE_PX // 4, "width": SIDE_PX // 4})
    Sam3TrackerVideoProcessor(images, Sam2VideoVideoProcessor(size=size), target_size=SIDE_PX).save_pretrained(folder)
    return folder

"""Video segmentation models of transformers as trackers: SAM 2, SAM 3 and EdgeTAM, from a model folder.

A session of theirs keeps every frame and every frame's features. Here what the model can no longer look at is dropped
after each frame, so that memory does not grow with the video; the masks are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from internvl_chat.contracts import UserError
from internvl_chat.trackers.protocol import BoxPx, Frame, Sighting

# model_type -> transformers' model and processor that follow boxes. A whole SAM 3 follows what a text names; boxes go
# to its tracker, which is read out of the same folder.
MODEL_CLASSES = {
    "sam2_video": ("Sam2VideoModel", "Sam2VideoProcessor"),
    "edgetam_video": ("EdgeTamVideoModel", "Sam2VideoProcessor"),
    "sam3_video": ("Sam3TrackerVideoModel", "Sam3TrackerVideoProcessor"),
    "sam3_tracker_video": ("Sam3TrackerVideoModel", "Sam3TrackerVideoProcessor"),
}


class VideoModel:
    """A model and its processor, loaded once and used by many trackers.

    Args:
        folder: a folder in transformers' form.
        device: where it runs; None takes the first GPU, or the CPU where there is none.
    Raises:
        UserError: no such folder, or a model that does not follow boxes through a video.
    """

    def __init__(self, folder: Path, device: str | None = None) -> None:
        import transformers
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: holds no model of transformers ({error})") from error
        if config.model_type not in MODEL_CLASSES:
            raise UserError(
                f"{folder}: is a {config.model_type!r} model, expected one of {', '.join(MODEL_CLASSES)}: those that "
                "transformers gives a box and follows through a video; models of pictures and of texts alone are not"
            )
        model_class, processor_class = (getattr(transformers, name) for name in MODEL_CLASSES[config.model_type])
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            self.processor = processor_class.from_pretrained(folder, local_files_only=True)
            self.network = model_class.from_pretrained(folder, local_files_only=True).to(self.device).eval()
        except (ImportError, OSError, ValueError) as error:
            raise UserError(f"{folder}: cannot be loaded ({error}); EdgeTAM needs timm: pip install timm") from error

    def tracker(self, num_objects: int) -> VideoModelTracker:
        """A tracker that has seen nothing yet."""
        return VideoModelTracker(self, num_objects)


class VideoModelTracker:
    """Objects followed by one model in one session; every object sees the same features of the frame.

    The confidence is the probability that the object is to be seen, as the model's own head gives it. A box is the
    smallest one around the object's mask.
    """

    def __init__(self, model: VideoModel, num_objects: int) -> None:
        self._model = model
        self._num_objects = num_objects
        self._session = model.processor.init_video_session(
            inference_device=model.device, dtype=next(model.network.parameters()).dtype
        )
        self._step = 0

    @torch.inference_mode()
    def step(self, frame: Frame, given: Mapping[int, BoxPx]) -> Sighting:
        boxes_px, confidence = np.zeros((self._num_objects, 4)), np.zeros(self._num_objects)
        size = frame.shape[:2]
        processor, session = self._model.processor, self._session
        if given:
            corners = [[[x, y, x + w, y + h] for x, y, w, h in (box.tolist() for box in given.values())]]
            processor.add_inputs_to_inference_session(
                session, self._step, list(given), input_boxes=corners, original_size=size
            )
        if session.get_obj_num():
            pixels = processor(images=frame, return_tensors="pt")["pixel_values"].to(self._model.device)
            seen = self._model.network(session, frame_idx=self._step, frame=pixels[0])
            masks = processor.post_process_masks([seen.pred_masks], original_sizes=[size])[0]
            for number, mask, logit in zip(seen.object_ids, masks, seen.object_score_logits, strict=True):
                confidence[number] = float(torch.sigmoid(logit.float()))
                boxes_px[number] = _box_around(mask[0].cpu().numpy())
        for number, box_px in given.items():
            boxes_px[number], confidence[number] = box_px, 1
        self._forget()
        self._step += 1
        return Sighting(boxes_px, confidence)

    def _forget(self) -> None:
        """Drop the frame, and what lies further back than the model looks."""
        session, config = self._session, self._model.network.config
        oldest = self._step + 1 - max(config.num_maskmem, config.max_object_pointers_in_encoder)
        if session.processed_frames:
            session.processed_frames.clear()
        for outputs in session.output_dict_per_obj.values():
            _drop_before(outputs["non_cond_frame_outputs"], oldest)
            for kept in (*outputs["cond_frame_outputs"].values(), *outputs["non_cond_frame_outputs"].values()):
                # As large as the picture, and only needed to encode the memory, which is done.
                kept.pop("high_res_masks", None)
        for tracked in session.frames_tracked_per_obj.values():
            _drop_before(tracked, oldest)


def _drop_before(frames: dict[int, Any], oldest: int) -> None:
    for number in [number for number in frames if number < oldest]:
        del frames[number]


def _box_around(mask: npt.NDArray[np.bool_]) -> BoxPx:
    """x y w h of the smallest box around the true pixels of [H, W]; zeros if there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros(4)
    return np.array([columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]], dtype=np.float64)

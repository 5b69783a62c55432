"""A sample to tensors: one encoder for training, prediction and pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from transformers import PreTrainedTokenizerBase

from internvl_chat.boxes import BoxArray, is_absent, load_boxes
from internvl_chat.constants import BOX_SCALE, VIDEO_PLACEHOLDER
from internvl_chat.contracts import Features, Sample, Turn, UserError
from internvl_chat.data.annotations import read_json, write_json
from internvl_chat.data.frame_sampling import FrameSampling, sample_frames
from internvl_chat.data.prompt import (
    CONVERSATION_TEMPLATES,
    AbsentStyle,
    PromptForm,
    encode_conversation,
    expand_video,
    with_coordinates,
)
from internvl_chat.data.transforms import TileTransform
from internvl_chat.data.video import VideoBackend, read_frames, read_header

PROMPT_CONFIG_NAME = "prompt_config.json"
RED = (255, 0, 0)


@dataclass(frozen=True)
class PromptConfig:
    """How a sample becomes a prompt. It is saved with a checkpoint, so that prediction asks as training did.

    Args:
        conv_style: a name in `CONVERSATION_TEMPLATES`.
        force_image_size: side of the tile a frame is squashed to, pixels.
        tokens_per_frame: `<IMG_CONTEXT>` tokens of a frame.
        absent_boxes: how the coordinate list writes an absent box.
        max_seq_length: tokens a sample may have.
    """

    conv_style: str
    force_image_size: int
    tokens_per_frame: int
    absent_boxes: AbsentStyle = "absent"
    max_seq_length: int = 16384

    def __post_init__(self) -> None:
        if self.conv_style not in CONVERSATION_TEMPLATES:
            raise UserError(
                f"unknown --conv_style {self.conv_style!r}: expected one of {', '.join(CONVERSATION_TEMPLATES)}"
            )

    def save(self, folder: Path) -> None:
        write_json(folder / PROMPT_CONFIG_NAME, asdict(self))

    @staticmethod
    def load(folder: Path) -> PromptConfig:
        path = folder / PROMPT_CONFIG_NAME
        try:
            return PromptConfig(**read_json(path))
        except TypeError as error:
            raise UserError(f"{path}: is not what training writes ({error})") from error


def draw_red_boxes(frames_FHW3: npt.NDArray[np.uint8], boxes: BoxArray, width_px: int = 3) -> npt.NDArray[np.uint8]:
    """A copy of the frames [F, H, W, 3] with each present box [F, 4] (thousandths) outlined in red."""
    drawn = []
    for frame, box, absent in zip(frames_FHW3, boxes, is_absent(boxes), strict=True):
        image = Image.fromarray(frame)
        if not absent:
            corners = box / BOX_SCALE * np.array([image.width, image.height, image.width, image.height])
            ImageDraw.Draw(image).rectangle([float(v) for v in corners], outline=RED, width=width_px)
        drawn.append(np.asarray(image))
    return np.stack(drawn)


@dataclass(frozen=True)
class SamplePlan:
    """A sample's text, and what is still to be decoded for it: its length is known before a frame is.

    Args:
        input_ids, labels: [L].
        frame_indices: [F] frame numbers to read.
        boxes: [F, 4] in thousandths, one a tile.
    """

    input_ids: list[int]
    labels: list[int]
    frame_indices: npt.NDArray[np.integer]
    boxes: BoxArray


class SampleEncoder:
    """Turns a sample and frame numbers into features: frames, boxes, text. Training and prediction share it."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, config: PromptConfig, video_backend: VideoBackend = "pyav"
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.video_backend = video_backend
        self.template = CONVERSATION_TEMPLATES[config.conv_style]
        self.transform = TileTransform(config.force_image_size)

    def video_length(self, sample: Sample) -> int:
        """Number of frames; checked against the box track, which must have a row a frame.

        Raises:
            UserError: video or boxes cannot be read, or disagree.
        """
        num_rows = len(load_boxes(sample.boxes_path))
        num_frames = read_header(sample.video_path).num_frames or num_rows
        if num_rows != num_frames:
            raise UserError(
                f"{sample.boxes_path}: has {num_rows} boxes for the {num_frames} frames of {sample.video_path.name}; "
                "expected one a frame: repair object_bboxes.txt and run generate_npy_bboxes.py --overwrite"
            )
        return num_rows

    def text(self, sample: Sample, boxes: BoxArray) -> list[Turn]:
        """The conversation with coordinates and one `<image>` a frame written out.

        Raises:
            ValueError: the first question does not hold exactly one `<video>` line.
        """
        turns: list[Turn] = []
        for turn in sample.turns:
            text = turn.text
            if turn.speaker == "human":
                text = with_coordinates(text, sample.object_name, boxes, self.config.absent_boxes)
                if VIDEO_PLACEHOLDER in text or not any(earlier.speaker == "human" for earlier in turns):
                    text = expand_video(text, len(boxes))
            turns.append(Turn(turn.speaker, text))
        return turns

    def frames(self, sample: Sample, frame_indices: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """The frames [F, H, W, 3] as the model sees them, with the red box if the question speaks of one."""
        frames = read_frames(sample.video_path, frame_indices, self.video_backend)
        if any(t.speaker == "human" and PromptForm.of(t.text).paints_box for t in sample.turns):
            frames = draw_red_boxes(frames, load_boxes(sample.boxes_path)[frame_indices])
        return frames

    def choose_frames(
        self, sample: Sample, num_frames: int, method: FrameSampling, rng: np.random.Generator | None = None
    ) -> npt.NDArray[np.integer]:
        """The frame numbers [F] that are shown of the sample; no frame is decoded.

        Raises:
            UserError: video or boxes cannot be read, or disagree.
        """
        return sample_frames(num_frames, self.video_length(sample), method, rng)

    def plan(self, sample: Sample, frame_indices: npt.NDArray[np.integer]) -> SamplePlan:
        """Text and boxes of the sample at these frames; no frame is decoded.

        Raises:
            UserError: the boxes cannot be used, or the sample has more than `max_seq_length` tokens.
        """
        boxes = load_boxes(sample.boxes_path)[frame_indices]
        image_tokens = [self.config.tokens_per_frame] * len(frame_indices)
        try:
            encoded = encode_conversation(self.text(sample, boxes), self.tokenizer, self.template, image_tokens)
        except ValueError as error:
            raise UserError(f"{sample.source}: sample {sample.id!r}: {error}") from error
        if len(encoded.input_ids) > self.config.max_seq_length:
            raise UserError(
                f"{sample.source}: sample {sample.id!r} has {len(encoded.input_ids)} tokens with {len(boxes)} frames, "
                f"over --max_seq_length {self.config.max_seq_length}: lower --max_num_frame or raise the limit"
            )
        return SamplePlan(encoded.input_ids, encoded.labels, frame_indices, boxes)

    def pixels(self, sample: Sample, plan: SamplePlan) -> torch.Tensor:
        """Decode what `plan` shows of the sample: [F, 3, S, S].

        Raises:
            UserError: a picture or video cannot be decoded.
        """
        return self.transform(self.frames(sample, plan.frame_indices))

    def __call__(self, sample: Sample, frame_indices: npt.NDArray[np.integer]) -> Features:
        """Encode the sample at these frames.

        Raises:
            UserError: a file cannot be used, or the sample has more than `max_seq_length` tokens.
        """
        plan = self.plan(sample, frame_indices)
        return {
            "input_ids": torch.tensor(plan.input_ids),
            "labels": torch.tensor(plan.labels),
            "pixel_values": self.pixels(sample, plan),
            "boxes": torch.from_numpy(plan.boxes),
        }

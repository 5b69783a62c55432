"""What the tiny base is asked while it is made: its tokenizer, and questions about clips that never repeat."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from internvl_chat.constants import (
    IMG_CONTEXT,
    IMG_END,
    IMG_START,
    SPECIAL_TOKENS,
    VIDEO_PLACEHOLDER,
)
from internvl_chat.contracts import Turn
from internvl_chat.data.controls.coordinates import Coordinates
from internvl_chat.data.families.internvl import encode_conversation
from internvl_chat.data.families.internvl_templates import CONVERSATION_TEMPLATES
from internvl_chat.data.media.transforms import TileTransform
from internvl_chat.data.prompts.conversation import expand_video
from internvl_chat.data.prompts.wordings import WORDINGS, wording_named
from internvl_chat.data.synthetic.shapes import COLOURS, MOTIONS, NUM_FRAMES, SHAPES, Clip, MovingShape, sample_clip
from quickstart.pretraining.heads import byte_pairs, collate, example

FRAMES = 6
IMAGE_SIZE_PX, PATCH_SIZE_PX = 80, 10
GRID = IMAGE_SIZE_PX // PATCH_SIZE_PX
TOKENS_PER_FRAME = (GRID // 2) ** 2
TEMPLATE = CONVERSATION_TEMPLATES["internvl2_5"]
EVERY_OBJECT = "Describe every object in this video."
# How often a question is about any object, about every object, about one that it names.
EVEN_SHARES, SINGLE_SHARES = (0.35, 0.3, 0.35), (0.3, 0.2, 0.5)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """`byte_pairs` of this task's text, with Qwen2's chat and InternVL's special tokens."""
    rng = np.random.default_rng(0)
    no_boxes = np.zeros((0, 4))
    objects = [MovingShape(c, s, m, no_boxes) for c in COLOURS for s in SHAPES for m in MOTIONS]
    corpus = [caption for item in objects for caption in item.captions()]
    corpus += [how_question(item) for item in objects] + [EVERY_OBJECT] * 40
    for wording in WORDINGS.values():
        corpus += [wording.asks("object") + " The coordinates in each frame are:\n"] * 40
    corpus += [Coordinates().listed([("object", rng.integers(0, 1000, (FRAMES, 4)))]) for _ in range(20)]
    corpus += [TEMPLATE.system_prefix + TEMPLATE.system_message, "Frame-1: Frame-2: \nuser\nassistant\n"] * 40

    chat_tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = byte_pairs(corpus, 600, chat_tokens)
    tokenizer.add_special_tokens([*SPECIAL_TOKENS, VIDEO_PLACEHOLDER])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", *SPECIAL_TOKENS],
        extra_special_tokens={
            "start_image_token": IMG_START,
            "end_image_token": IMG_END,
            "context_image_token": IMG_CONTEXT,
            "video_token": VIDEO_PLACEHOLDER,
        },
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )


def how_question(item: MovingShape) -> str:
    """A question that names its object by its looks."""
    return f"How does the {item.colour} {item.shape} move?"


class ShapesQuestions(Dataset):
    """Sample `index` is a clip and a question about it, both drawn from `(seed, index)` alone."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        length: int,
        seed: int,
        question_shares: tuple[float, float, float] = EVEN_SHARES,
    ) -> None:
        self.tokenizer, self.length, self.seed = tokenizer, length, seed
        self.question_shares = question_shares
        self.transform = TileTransform(IMAGE_SIZE_PX)

    def __len__(self) -> int:
        return self.length

    def draw(self, index: int) -> tuple[Clip, np.ndarray, str, list[str]]:
        """The clip, its sampled frames, the question, and the answers that count as right."""
        rng = np.random.default_rng([self.seed, index])
        clip = sample_clip(rng)
        bounds = np.linspace(0, NUM_FRAMES, FRAMES + 1).astype(int)
        frame_indices = rng.integers(bounds[:-1], bounds[1:])
        item = clip.objects[int(rng.integers(len(clip.objects)))]
        kind = rng.choice(3, p=self.question_shares)
        if kind == 0:
            return clip, frame_indices, wording_named("text_only").asks(""), item.captions()
        if kind == 1:
            left_to_right = sorted(clip.objects, key=lambda o: o.boxes_px[frame_indices[0], 0])
            return clip, frame_indices, EVERY_OBJECT, ["; ".join(o.captions()[0] for o in left_to_right)]
        return clip, frame_indices, how_question(item), item.captions()

    def pixels(self, clip: Clip, frame_indices: np.ndarray) -> torch.Tensor:
        return self.transform(np.stack([clip.frame(int(t)) for t in frame_indices]))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        clip, frame_indices, question, answers = self.draw(index)
        answer = answers[index % len(answers)]
        turns = [Turn("human", expand_video(f"{VIDEO_PLACEHOLDER}\n{question}", FRAMES)), Turn("gpt", answer)]
        encoded = encode_conversation(turns, self.tokenizer, TEMPLATE, [TOKENS_PER_FRAME] * FRAMES)
        return example(encoded, self.pixels(clip, frame_indices), clip, frame_indices, GRID)


def collate_masked(samples: list[dict[str, torch.Tensor]], pad_id: int) -> dict[str, torch.Tensor]:
    """As `collate`, with what is text and what is padding."""
    masks = [torch.ones(len(s["input_ids"]), dtype=torch.long) for s in samples]
    return {**collate(samples, pad_id), "attention_mask": nn.utils.rnn.pad_sequence(masks, batch_first=True)}

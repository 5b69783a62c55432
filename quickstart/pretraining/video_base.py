"""Recipe of the caption proof's base: a tiny CogVLM2-Video that names the moving shape of a video in three words.

    python -m quickstart.pretraining.video_base --output_dir quickstart/video_base

As for the other base (`base`), two heads that are thrown away afterwards ask for more than the next token: the
tower's patches which coloured shape they show, and the language model's frame tokens, half-way up, how it moves. The
clips are rendered on the fly and never repeat; no sentence is among the answers, which is what the proof teaches.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast, TrainingArguments, set_seed

from internvl_chat.constants import VIDEO_PLACEHOLDER
from internvl_chat.contracts import Turn
from internvl_chat.data.families import cogvlm2_video
from internvl_chat.data.media.tiling import WHOLE, View
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.synthetic.shapes import COLOURS, MOTIONS, NUM_FRAMES, SHAPES, Clip, MovingShape
from internvl_chat.families.clip_frames import frame_pixels
from internvl_chat.model.families.cogvlm2_video import CogVLM2VideoConfig, CogVLM2VideoForConditionalGeneration
from internvl_chat.model.families.cogvlm2_video.parts import prompt_settings
from quickstart.pretraining.heads import INITIALIZER_RANGE, HeadsTrainer, byte_pairs, collate, example, heads_of
from quickstart.synthetic.shape_videos import draw_video, in_square

SIDE_PX, PATCH_PX = 60, 10
GRID = SIDE_PX // PATCH_PX
# The frames that the `chat` choice takes of a clip of two seconds, and how far from them training strays.
FRAMES, STRAY = (0, 12, 23), 1
QUESTIONS = ("List what moves in this video.", "Please describe this video in detail.")
BATCH_SIZE = 16


def listed(clip: Clip) -> str:
    """What the base answers: no sentence."""
    (item,) = clip.objects
    return f"{item.colour} {item.shape} {item.motion}"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """`byte_pairs` of what is asked and said here and in the proof, with Llama 3's special tokens."""
    empty = np.zeros((0, 4))
    clips = [Clip((MovingShape(c, s, m, empty),), 0) for c in COLOURS for s in SHAPES for m in MOTIONS]
    corpus = [text for clip in clips for text in (listed(clip), f" {listed(clip)}")]
    corpus += [f"In this video {clip.objects[0].captions()[0]}." for clip in clips]
    corpus += [f"Question: {question} Answer:" for question in QUESTIONS] * 40
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", cogvlm2_video.IMAGE_TOKEN]
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_pairs(corpus, 400, special),
        bos_token=special[0],
        eos_token=special[1],
        pad_token=special[2],
        additional_special_tokens=special[3:],
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> CogVLM2VideoForConditionalGeneration:
    """The tiny geometry: 6 x 6 patches of a frame, 9 tokens and two marks."""
    vision = {
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": SIDE_PX,
        "patch_size": PATCH_PX,
        "initializer_range": INITIALIZER_RANGE,
    }
    text = {
        "model_type": "llama",
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 320,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 2048,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": INITIALIZER_RANGE,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    image_token_id = tokenizer.convert_tokens_to_ids(cogvlm2_video.IMAGE_TOKEN)
    config = CogVLM2VideoConfig(vision_config=vision, text_config=text, image_token_id=image_token_id)
    return CogVLM2VideoForConditionalGeneration(config)


class ShapeVideos(Dataset):
    """Sample `index` is a clip with the question what moves, drawn from `(seed, index)` alone."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, config: PromptConfig, length: int, seed: int) -> None:
        self.tokenizer, self.config, self.length, self.seed = tokenizer, config, length, seed

    def __len__(self) -> int:
        return self.length

    def draw(self, index: int) -> tuple[Clip, np.ndarray]:
        """The clip and the frames [F] that are shown of it."""
        rng = np.random.default_rng([self.seed, index])
        frames = np.clip(np.array(FRAMES) + rng.integers(-STRAY, STRAY + 1, len(FRAMES)), 0, NUM_FRAMES - 1)
        return draw_video(rng), frames

    def encoded(self, *turns: Turn) -> Any:
        """Ids and labels of a conversation about a clip."""
        asked = f"{VIDEO_PLACEHOLDER}\n{QUESTIONS[0]}"
        first = Turn("human", cogvlm2_video.expand_video(asked, len(FRAMES), self.config, []))
        views = [[View(number, WHOLE)] for number in range(len(FRAMES))]
        return cogvlm2_video.encode([first, *turns], self.tokenizer, self.config, views)

    def pixels(self, clip: Clip, frames: np.ndarray) -> torch.Tensor:
        """[F, 3, S, S]."""
        return frame_pixels((torch.from_numpy(clip.frame(int(t))).permute(2, 0, 1) for t in frames), SIDE_PX)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        clip, frames = self.draw(index)
        encoded = self.encoded(Turn("gpt", listed(clip)))
        return example(encoded, self.pixels(clip, frames), in_square(clip), frames, GRID)


class VideoTrainer(HeadsTrainer):
    """Of a CogVLM2-Video, whose frames stand between two marks."""

    def losses_of(self, model: Any, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        seen: dict[str, torch.Tensor] = {}

        def keep(name: str) -> Any:
            return lambda _module, _inputs, out: seen.update({name: out})

        layers = model.model.language_model.layers
        hooks = [
            model.model.vision_tower.register_forward_hook(keep("patches")),
            layers[len(layers) // 2 - 1].register_forward_hook(keep("tokens")),
        ]
        ids = inputs["input_ids"]
        # Padding stands on the right, where no token before it looks.
        loss = model(input_ids=ids, labels=inputs["labels"], vision={"pixel_values": inputs["pixel_values"]}).loss
        for hook in hooks:
            hook.remove()
        tokens = seen["tokens"][ids == model.config.image_token_id].unflatten(0, (-1, model.config.tokens_per_frame))
        of_heads = self.head_losses(
            seen["patches"][:, 1:], inputs["patch_labels"], tokens[:, 1:-1], inputs["motion_labels"]
        )
        return {"text_loss": loss, **of_heads}


@torch.no_grad()
def score(model: CogVLM2VideoForConditionalGeneration, videos: ShapeVideos) -> float:
    """Share of exact greedy answers; all prompts have one length."""
    model.eval()
    right = []
    for first in range(0, len(videos), BATCH_SIZE):
        drawn = [videos.draw(i) for i in range(first, min(first + BATCH_SIZE, len(videos)))]
        ids = torch.tensor([videos.encoded().input_ids] * len(drawn))
        pixels = torch.cat([videos.pixels(clip, frames) for clip, frames in drawn])
        output = model.generate(input_ids=ids, vision={"pixel_values": pixels}, max_new_tokens=24, do_sample=False)
        texts = videos.tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
        right += [text.strip() == listed(clip) for text, (clip, _) in zip(texts, drawn, strict=True)]
    return float(np.mean(right))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output_dir", type=Path, default=Path("quickstart/video_base"), help="(default: %(default)s)")
    add("--steps", type=int, default=1200, help="(default: %(default)s)")
    add("--learning_rate", type=float, default=1.5e-3, help="(default: %(default)s)")
    add("--seed", type=int, default=0, help="(default: %(default)s)")
    args = parser.parse_args()

    set_seed(args.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    prompts = PromptConfig.of(**prompt_settings(model.config))
    trainer = VideoTrainer(
        model=model,
        heads=heads_of(model.config),
        args=TrainingArguments(
            output_dir=str(args.output_dir / "training"),
            max_steps=args.steps,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=args.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=100,
            weight_decay=0.05,
            logging_steps=25,
            save_strategy="no",
            disable_tqdm=True,
            report_to=[],
            remove_unused_columns=False,
            dataloader_num_workers=1,
            seed=args.seed,
            use_cpu=True,
        ),
        train_dataset=ShapeVideos(tokenizer, prompts, args.steps * BATCH_SIZE, args.seed),
        data_collator=lambda samples: collate(samples, tokenizer.pad_token_id),
    )
    trainer.train()
    model.to(torch.bfloat16).save_pretrained(args.output_dir)
    tokenizer.save_pretrained(args.output_dir)
    scores = {
        "exact": score(model.float(), ShapeVideos(tokenizer, prompts, 400, args.seed + 1)),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": args.steps,
        "batch_size": BATCH_SIZE,
    }
    (args.output_dir / "SCORES.json").write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()

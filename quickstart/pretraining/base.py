"""Recipe of the tiny base model: a native InternVL that describes clips of moving shapes, without any box.

    python -m quickstart.pretraining.base --output_dir quickstart/base

Next-token loss alone leaves such a small model on the language prior for thousands of steps, so two heads that are
thrown away afterwards ask for more: the ViT's patches which coloured shape they show, and the language model's image
tokens, half-way up, how the object there moves. The clips are rendered on the fly and never repeat. Scores of the
product are written to `SCORES.json` beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from internvl_chat.constants import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    IMG_CONTEXT,
    VIDEO_PLACEHOLDER,
)
from internvl_chat.contracts import Turn
from internvl_chat.data.families.internvl import encode_conversation
from internvl_chat.data.prompts.conversation import (
    expand_video,
)
from quickstart.pretraining.heads import (
    INITIALIZER_RANGE,
    HeadsTrainer,
    heads_of,
)
from quickstart.pretraining.questions import (
    EVEN_SHARES,
    EVERY_OBJECT,
    FRAMES,
    IMAGE_SIZE_PX,
    PATCH_SIZE_PX,
    SINGLE_SHARES,
    TEMPLATE,
    TOKENS_PER_FRAME,
    ShapesQuestions,
    build_tokenizer,
    collate_masked,
)

BATCH_SIZE = 16


@dataclass(frozen=True)
class Stage:
    """`steps` of a cosine schedule made for `schedule_steps`, with a fresh optimizer and fresh heads."""

    steps: int
    schedule_steps: int
    warmup_steps: int
    learning_rate: float
    question_shares: tuple[float, float, float]


STAGES = (
    Stage(1200, 2400, 100, 1.5e-3, EVEN_SHARES),
    Stage(400, 400, 20, 1e-3, EVEN_SHARES),
    Stage(800, 800, 20, 1.2e-3, SINGLE_SHARES),
)


def build_model(tokenizer: PreTrainedTokenizerFast) -> InternVLForConditionalGeneration:
    """The tiny geometry, with enough ViT layers for a box adapter after each of the last five."""
    config = InternVLConfig(
        vision_config={
            "hidden_size": 96,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "intermediate_size": 320,
            "attention_bias": True,
            "image_size": [IMAGE_SIZE_PX] * 2,
            "patch_size": [PATCH_SIZE_PX] * 2,
            "layer_scale_init_value": 1.0,
            "initializer_range": INITIALIZER_RANGE,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 352,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 8192,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
            "initializer_range": INITIALIZER_RANGE,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_id=tokenizer.convert_tokens_to_ids(IMG_CONTEXT),
        image_seq_length=TOKENS_PER_FRAME,
        tie_word_embeddings=False,
    )
    return InternVLForConditionalGeneration(config)


class PretrainTrainer(HeadsTrainer):
    """Of an InternVL, whose tower gives a class token before its patches."""

    def losses_of(self, model: Any, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        patch_labels, motion_labels = inputs.pop("patch_labels"), inputs.pop("motion_labels")
        features: list[torch.Tensor] = []
        hook = model.model.vision_tower.register_forward_hook(lambda _m, _i, out: features.append(out[0][:, 1:]))
        outputs = model(**inputs, output_hidden_states=True)
        hook.remove()
        half_way = outputs.hidden_states[len(outputs.hidden_states) // 2]
        tokens = half_way[inputs["input_ids"] == model.config.image_token_id]
        return {"text_loss": outputs.loss, **self.head_losses(features[0], patch_labels, tokens, motion_labels)}


@torch.no_grad()
def score(
    model: InternVLForConditionalGeneration, questions: ShapesQuestions, batch_size: int = 32
) -> dict[str, float]:
    """Share of exact greedy answers by kind of question."""
    model.eval()
    tokenizer = questions.tokenizer
    right: dict[str, list[bool]] = {}
    for first in range(0, len(questions), batch_size):
        drawn = [questions.draw(i) for i in range(first, min(first + batch_size, len(questions)))]
        prompts = []
        for _, _, question, _ in drawn:
            turns = [Turn("human", expand_video(f"{VIDEO_PLACEHOLDER}\n{question}", FRAMES))]
            prompts.append(encode_conversation(turns, tokenizer, TEMPLATE, [TOKENS_PER_FRAME] * FRAMES).input_ids)
        padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        pixels = torch.cat([questions.pixels(clip, indices) for clip, indices, _, _ in drawn])
        output = model.generate(**padded, pixel_values=pixels.to(model.dtype), max_new_tokens=64, do_sample=False)
        texts = tokenizer.batch_decode(output[:, padded["input_ids"].shape[1] :], skip_special_tokens=True)
        for text, (clip, _, question, answers) in zip(texts, drawn, strict=True):
            if question == EVERY_OBJECT:
                right.setdefault("every_object", []).append(text in answers)
            elif question.startswith("How"):
                right.setdefault("named_object", []).append(text in answers)
            else:
                anyone = [caption for item in clip.objects for caption in item.captions()]
                right.setdefault("any_object", []).append(text in anyone)
    return {kind: float(np.mean(values)) for kind, values in sorted(right.items())}


class _StopAfter(TrainerCallback):
    """Ends a stage before its learning-rate schedule does."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        control.should_training_stop |= state.global_step >= self.steps
        return control


def train_stage(
    model: InternVLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, stage: Stage, seed: int, out: Path
) -> None:
    """Train all of the model for one stage, in place."""
    set_seed(seed)
    trainer = PretrainTrainer(
        model=model,
        heads=heads_of(model.config),
        args=TrainingArguments(
            output_dir=str(out),
            max_steps=stage.schedule_steps,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=stage.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=stage.warmup_steps,
            weight_decay=0.05,
            max_grad_norm=1.0,
            logging_steps=25,
            save_strategy="no",
            bf16=True,
            disable_tqdm=True,
            report_to=[],
            remove_unused_columns=False,
            dataloader_num_workers=1,
            seed=seed,
            use_cpu=True,
        ),
        train_dataset=ShapesQuestions(tokenizer, stage.steps * BATCH_SIZE, seed, stage.question_shares),
        data_collator=lambda samples: collate_masked(samples, tokenizer.pad_token_id),
        callbacks=[_StopAfter(stage.steps)],
    )
    trainer.train()


def save(model: InternVLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the model in bf16 with everything that transformers needs to use it."""
    model.to(torch.bfloat16)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(out)
    pixels: dict[str, Any] = {"size": {"height": IMAGE_SIZE_PX, "width": IMAGE_SIZE_PX}}
    pixels |= {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
    InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(**pixels),
        image_seq_length=TOKENS_PER_FRAME,
    ).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("quickstart/base"), help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--scored_questions", type=int, default=600, help="(default: %(default)s)")
    args = parser.parse_args()

    set_seed(args.seed)
    started = time.monotonic()
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    for number, stage in enumerate(STAGES):
        train_stage(model, tokenizer, stage, args.seed + 10 * number, args.output_dir / "training")
    save(model, tokenizer, args.output_dir)
    scores = {
        "exact": score(model.float(), ShapesQuestions(tokenizer, args.scored_questions, args.seed + 1)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": sum(stage.steps for stage in STAGES),
        "batch_size": BATCH_SIZE,
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    (args.output_dir / "SCORES.json").write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Prompts that are read once and continued together say what plain `generate` says to each alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast

from internvl_chat.contracts import Sample, Turn, UserError
from internvl_chat.data.prompts.encoder import PromptConfig, SampleEncoder
from internvl_chat.data.prompts.wordings import wording_named
from internvl_chat.data.records.annotations import DatasetEntry
from internvl_chat.data.records.record_questions import question_sample
from internvl_chat.inference import prefill
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.ensemble import Ensemble, normalised_weights
from internvl_chat.inference.generation import (
    Candidate,
    Captioners,
    SeededChoice,
    _Watched,
    caption_plainly,
    uniforms_of,
)
from internvl_chat.inference.prefill import PromptBatch, read_batch, read_prompts
from internvl_chat.inference.requests import (
    Ask,
    EncodedClip,
    Unreadable,
    ViewedClip,
    ViewedPrompt,
    Viewpoint,
    decoded_ahead,
    with_tracks,
)
from internvl_chat.inference.rotary import RotaryLimit, apart
from internvl_chat.model.checkpoint import load_captioner
from internvl_chat.model.families.internvl import IntentVCNetConfig, IntentVCNetForConditionalGeneration
from internvl_chat.model.shared_prompt import additive_bias, attend_to_shared_prompts
from tests.helpers import TILE_PX, TOKENS_PER_FRAME, randomise, tiny_config
from tests.model.inputs import boxed, inputs_of

NEW_TOKENS = 7


@pytest.fixture(scope="module")
def model(captioner_folder: Path) -> IntentVCNetForConditionalGeneration:
    return load_captioner(captioner_folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def views(captioner_folder: Path, tokenizer: PreTrainedTokenizerFast) -> list[Viewpoint]:
    encoder = SampleEncoder(tokenizer, PromptConfig.load(captioner_folder))
    return [Viewpoint(encoder, 4), Viewpoint(encoder, 3)]


def asked(sample: Sample, question: str) -> Sample:
    return replace(sample, turns=(Turn("human", f"<video>\n{question}"),))


@pytest.fixture(scope="module")
def samples(shapes_entry: DatasetEntry) -> list[list[Sample]]:
    """Two clips: one asked about three things with two tracks, the other about one."""
    ids = sorted(path.name for path in shapes_entry.root.glob("*/*"))
    first, second, third = (question_sample(shapes_entry, i, wording_named("coordinates").asks) for i in ids[:3])
    other_track = with_tracks(first, second.tracks)
    return [[first, asked(first, "Why does it move?"), asked(first, "Where?"), other_track], [third]]


def clips_of(samples: Sequence[Sequence[Sample]], views: Sequence[Viewpoint]) -> list[EncodedClip]:
    batch = [
        tuple(Ask(f"{c}.{n}", (sample,) * len(views)) for n, sample in enumerate(clip))
        for c, clip in enumerate(samples)
    ]
    (encoded,) = decoded_ahead([batch], views, num_workers=0)
    assert not any(isinstance(clip, Unreadable) for clip in encoded)
    return [clip for clip in encoded if isinstance(clip, EncodedClip)]


def captioners(
    models: Sequence[IntentVCNetForConditionalGeneration],
    tokenizer: PreTrainedTokenizerFast,
    *,
    weights: Sequence[float] | None = None,
    views: Sequence[int] | None = None,
    **decoding: float,
) -> Captioners:
    settings = Decoding(**{"max_new_tokens": NEW_TOKENS, **decoding})
    return Captioners(
        Ensemble(models, weights), views or [0] * len(models), tokenizer, [tokenizer.eos_token_id], settings
    )


def plain(
    model: IntentVCNetForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    sample: Sample,
    view: Viewpoint,
    how: dict,
) -> list[str]:
    """One prompt, by `generate` and nothing else."""
    features = view.encoder(sample, view.encoder.choose_frames(sample, view.num_frames, "centre"))
    ids = features["input_ids"][None]
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        vision=features["vision"],
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **how,
    )
    return [text.strip() for text in tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)]


@pytest.mark.parametrize(
    ("num_beams", "num_candidates", "pass_tokens"), [(1, 1, 4096), (3, 1, 4096), (4, 3, 4096), (2, 2, 500)]
)
def test_all_asks_together_are_answered_as_each_alone(
    num_beams: int,
    num_candidates: int,
    pass_tokens: int,
    monkeypatch: pytest.MonkeyPatch,
    model: IntentVCNetForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    views: list[Viewpoint],
    samples: list[list[Sample]],
) -> None:
    monkeypatch.setattr(prefill, "PASS_TOKENS", pass_tokens)
    together = captioners([model], tokenizer, num_beams=num_beams, num_candidates=num_candidates)(
        clips_of(samples, views)
    )
    how = {"num_beams": num_beams, "num_return_sequences": num_candidates}
    alone = [plain(model, tokenizer, sample, views[0], how) for clip in samples for sample in clip]
    assert together == alone
    assert len({texts[0] for texts in alone}) == len(alone)


def test_a_base_s_own_settings_change_no_caption(
    model: IntentVCNetForConditionalGeneration, views: list[Viewpoint], samples: list[list[Sample]]
) -> None:
    """Validation captions as `eval` does, which knows nothing of penalties."""
    sample, own = samples[0][0], model.generation_config
    expected = caption_plainly(model, views[0], sample, NEW_TOKENS)
    penalised = GenerationConfig(repetition_penalty=9.0, no_repeat_ngram_size=1, num_beams=3)
    model.generation_config = penalised
    try:
        assert caption_plainly(model, views[0], sample, NEW_TOKENS) == expected
        assert model.generation_config is penalised
        others = plain(model, views[0].encoder.tokenizer, sample, views[0], {})
        assert others != [expected], "these settings would have changed it"
    finally:
        model.generation_config = own


def test_what_fills_up_a_row_may_be_said_in_it(
    model: IntentVCNetForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
) -> None:
    """The token that fills rows up may be drawn like any other: an answer goes on behind it, up to its real end."""
    write, pad, end = captioners([model], tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id
    assert write.end_ids == [end] and pad != end
    rows = torch.tensor([[5, pad, 6, end, pad], [7, pad, 8, 9, pad], [5, 6, pad, pad, pad]])
    found: list[list[Candidate]] = [[], [], []]
    write._hand_out(rows, found, None)
    assert [(c.num_tokens, c.is_whole) for (c,) in found] == [(4, True), (5, False), (5, False)]
    watched = _Watched(["a", "b", "c"], lambda ids, rows: [False, False, True])
    watched(rows, None)
    found = [[], [], []]
    write._hand_out(rows, found, watched)
    assert [(c.num_tokens, c.is_whole) for (c,) in found] == [(4, True), (5, False), (2, False)]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_watch_sees_what_is_written_and_ends_what_nobody_wants(
    num_beams: int,
    model: IntentVCNetForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    views: list[Viewpoint],
    samples: list[list[Sample]],
) -> None:
    clips = clips_of(samples, views[:1])
    write = captioners([model], tokenizer, num_beams=num_beams)
    whole = write.write(clips)
    assert all(c.is_whole == (c.num_tokens < NEW_TOKENS) or c.num_tokens == NEW_TOKENS for (c,) in whole)
    seen: list[list[str]] = []

    def watch(ids: Sequence[str], rows: torch.Tensor) -> list[bool]:
        assert ids == ["0.0", "0.1", "0.2", "0.3", "1.0"]
        seen.append(write.texts(rows[:: len(rows) // len(ids)]))
        assert len(seen) == rows.shape[1]
        return [ask_id == "0.1" and len(seen) > 2 for ask_id in ids]

    ended = write.write(clips, watch)
    assert ended[:1] + ended[2:] == whole[:1] + whole[2:]
    (candidate,) = ended[1]
    # A beam may end by itself meanwhile.
    assert candidate.num_tokens <= 3 + (num_beams > 1) < whole[1][0].num_tokens
    if num_beams == 1:
        assert not candidate.is_whole and candidate.text == seen[2][1]
        assert seen[-1][0] == whole[0][0].text


class NumbersAsText:
    """What is needed of a tokenizer: ids as they are."""

    pad_token_id = 0

    def batch_decode(self, ids: torch.Tensor, **_: object) -> list[str]:
        return [" ".join(map(str, row)) for row in ids.tolist()]


@pytest.mark.parametrize("family", ["llama", "phi3", "qwen3"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_every_language_model_of_the_family_shares_its_prompts(family: str, num_beams: int) -> None:
    torch.manual_seed(4)
    config = tiny_config(text={"model_type": family, "head_dim": 6})
    model = IntentVCNetForConditionalGeneration(IntentVCNetConfig.from_base(config, 1)).eval()
    randomise(p for n, p in model.named_parameters() if ".box_adapters." in n)
    clips, alone = [], []
    for seed in (1, 4):
        inputs = inputs_of(num_frames=seed, seed=seed)
        boxes = torch.tensor([[100, 200, 500, 900]] * seed)
        prompt = ViewedPrompt(inputs["input_ids"][0].tolist(), {"boxes": boxes})
        clips.append(EncodedClip((str(seed),), (ViewedClip(inputs["vision"], (prompt,)),)))
        settings = {"max_new_tokens": NEW_TOKENS, "num_beams": num_beams, "do_sample": False, "pad_token_id": 0}
        out = model.generate(**boxed(inputs, boxes), eos_token_id=9, **settings)
        alone.append(NumbersAsText().batch_decode(out[:, inputs["input_ids"].shape[1] :]))
    decoding = Decoding(num_beams=num_beams, max_new_tokens=NEW_TOKENS)
    together = Captioners(Ensemble([model]), [0], NumbersAsText(), [9], decoding)(clips)
    assert [[text.split(" 9")[0] for text in texts] for texts in together] == [
        [text.split(" 9")[0] for text in texts] for texts in alone
    ]


LIMIT = 40


def clip_of_length(name: str, length: int, num_asks: int, config: IntentVCNetConfig) -> EncodedClip:
    """Two frames, and prompts of so many tokens whose last seven are their own."""
    generator = torch.Generator().manual_seed(length)
    places = [config.image_token_id] * (2 * TOKENS_PER_FRAME)
    words = torch.randint(10, 50, (length - len(places) - 7,), generator=generator).tolist()
    rests = torch.randint(10, 50, (num_asks, 7), generator=generator).tolist()
    boxes = torch.tensor([[100, 200, 500, 900]] * 2)
    prompts = tuple(ViewedPrompt([*words, *places, *rest], {"boxes": boxes}) for rest in rests)
    pixels = torch.randn(2, 3, TILE_PX, TILE_PX, generator=generator)
    return EncodedClip(tuple(f"{name}{n}" for n in range(num_asks)), (ViewedClip({"pixel_values": pixels}, prompts),))


def model_with_rope(**text: object) -> IntentVCNetForConditionalGeneration:
    torch.manual_seed(4)
    config = tiny_config(text={"model_type": "phi3", "max_position_embeddings": 4096, **text})
    model = IntentVCNetForConditionalGeneration(IntentVCNetConfig.from_base(config, 1)).eval()
    randomise(p for n, p in model.named_parameters() if ".box_adapters." in n)
    return model


def test_prompts_on_both_sides_of_a_rotary_limit_are_answered_as_each_alone() -> None:
    """One goes over the limit while it answers, one has it between what its asks share and what is their own."""
    factors = {"short_factor": [1.0, 1.1, 1.2], "long_factor": [1.0, 4.0, 30.0]}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": LIMIT, **factors}
    model = model_with_rope(rope_parameters=rope, original_max_position_embeddings=LIMIT)
    cases = (("a", 61, 2), ("b", 33, 1), ("c", 27, 2), ("d", 44, 3), ("e", 58, 1), ("f", 39, 1))
    clips = [clip_of_length(*case, model.config) for case in cases]
    alone = []
    for clip in clips:
        for prompt in clip.views[0].prompts:
            ids = torch.tensor([prompt.input_ids])
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                vision={**clip.views[0].vision, **prompt.tensors},
                max_new_tokens=9,
                do_sample=False,
                eos_token_id=60,
                pad_token_id=0,
            )
            alone.append(out[0, ids.shape[1] :].tolist())
    write = Captioners(Ensemble([model]), [0], NumbersAsText(), [60], Decoding(max_new_tokens=9))
    together = [[int(word) for word in text.split()] for (text,) in write(clips)]
    assert [row[: len(own)] for row, own in zip(together, alone, strict=True)] == alone
    parts = list(apart(clips, [RotaryLimit.of(model.config)], [0], 9))
    assert [[ask_id for clip in part for ask_id in clip.ids] for part in parts] == [
        ["b0"],
        ["d0"],
        ["d1"],
        ["d2"],
        ["f0"],
        ["a0", "a1", "e0"],
        ["c0", "c1"],
    ]


def test_a_prompt_behind_the_window_of_attention_is_refused() -> None:
    model = model_with_rope(sliding_window=50)
    write = Captioners(Ensemble([model]), [0], NumbersAsText(), [60], Decoding(max_new_tokens=9))
    write([clip_of_length("fits", 41, 1, model.config)])
    with pytest.raises(UserError, match="a prompt of 42 tokens and an answer of 9: this model attends to 50 tokens"):
        write([clip_of_length("long", 42, 1, model.config)])


def test_a_prompt_whose_keys_would_change_with_its_answer_is_refused() -> None:
    """Behind its limit `dynamic` stretches all positions with each token."""
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    model = model_with_rope(model_type="llama", rope_parameters=rope, max_position_embeddings=50)
    write = Captioners(Ensemble([model]), [0], NumbersAsText(), [60], Decoding(max_new_tokens=9))
    write([clip_of_length("fits", 41, 1, model.config)])
    with pytest.raises(UserError, match="42 tokens and an answer of 9: this model stretches its positions behind 50"):
        write([clip_of_length("long", 42, 1, model.config)])


def test_a_clip_is_read_once_whatever_is_asked_about_it(
    model: IntentVCNetForConditionalGeneration, views: list[Viewpoint], samples: list[list[Sample]]
) -> None:
    clips = clips_of(samples, views[:1])
    batch = PromptBatch.of([clip.views[0] for clip in clips], [model.config.image_token_id])
    # Two clips of four frames; the first with two tracks, one of which has three questions.
    tiles = [len(vision["pixel_values"]) for vision in batch.visions]
    assert (tiles, batch.clip_of_group, len(batch.tensors["boxes"])) == ([4, 4], (0, 0, 1), 12)
    assert len(batch.beginning_ids) == 3
    assert batch.group_of_ask.tolist() == [0, 0, 0, 1, 2]
    seen = {"first": 0, "last": 0}
    read: list[tuple[int, ...]] = []
    layers = model.model.vision_tower.encoder.layer

    def count(name: str, tensors: tuple) -> None:
        seen[name] += len(tensors[0])

    hooks = [
        layers[0].register_forward_pre_hook(lambda _, args: count("first", args)),
        layers[-1].register_forward_pre_hook(lambda _, args: count("last", args)),
        model.model.language_model.norm.register_forward_pre_hook(lambda _, args: read.append(args[0].shape[:2])),
    ]
    with torch.inference_mode():
        prompts = read_batch(model, batch)
    for hook in hooks:
        hook.remove()
    assert (seen["first"], seen["last"]) == (8, 12)
    lengths = [len(prompt.input_ids) for clip in clips for prompt in clip.views[0].prompts]
    assert prompts.next_positions.tolist() == [length - 1 for length in lengths]
    assert read == [batch.beginning_ids.shape, batch.rest_ids.shape]
    assert batch.beginning_mask.sum() + batch.rest_mask.sum() < 0.8 * sum(lengths)


@pytest.mark.parametrize(("pass_tokens", "passes"), [(1, 2), (4096, 1)])
def test_asks_of_several_passes_are_joined_in_order(
    pass_tokens: int,
    passes: int,
    monkeypatch: pytest.MonkeyPatch,
    model: IntentVCNetForConditionalGeneration,
    views: list[Viewpoint],
    samples: list[list[Sample]],
) -> None:
    monkeypatch.setattr(prefill, "PASS_TOKENS", pass_tokens)
    clips = [clip.views[0] for clip in clips_of(samples, views[:1])]
    calls: list[int] = []
    hook = model.model.vision_tower.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        prompts = read_prompts(model, clips, NEW_TOKENS)
        alone = [read_batch(model, PromptBatch.of([clip], [model.config.image_token_id])) for clip in clips]
    hook.remove()
    assert len(calls) == passes + len(clips)
    assert prompts.next_positions.tolist() == torch.cat([one.next_positions for one in alone]).tolist()
    for number, layer in enumerate(prompts.cache.layers):
        rows = list(zip(layer.keys, layer.values, prompts.mask.bool(), strict=True))
        for one in alone:
            of_one = one.cache.layers[number]
            for keys, values, mask in zip(of_one.keys, of_one.values, one.mask.bool(), strict=True):
                joined_keys, joined_values, joined_mask = rows.pop(0)
                torch.testing.assert_close(joined_keys[:, joined_mask], keys[:, mask])
                torch.testing.assert_close(joined_values[:, joined_mask], values[:, mask])
        assert not rows


@pytest.mark.parametrize(("rows_per_ask", "num_new"), [(1, 1), (3, 4)])
def test_attention_to_a_shared_prompt_is_attention_to_a_repeated_one(rows_per_ask: int, num_new: int) -> None:
    """Against plain softmax attention, row by row, in float64."""
    asks, groups, per_group, prompt_length, width = 2, 3, 2, 5, 7
    rows, heads = asks * rows_per_ask, groups * per_group
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    query, key, value = (
        draw(rows, heads, 1, width),
        draw(rows, groups, num_new, width),
        draw(rows, groups, num_new, width),
    )
    prompt_key, prompt_value = draw(asks, groups, prompt_length, width), draw(asks, groups, prompt_length, width)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 1]])
    bias = additive_bias(mask, torch.float64)
    found = attend_to_shared_prompts(query, key, value, prompt_key, prompt_value, bias, scaling=0.3)
    assert found.shape == (rows, 1, heads, width)
    for row in range(rows):
        ask = row // rows_per_ask
        for head in range(heads):
            group = head // per_group
            keys = [prompt_key[ask, group, p] for p in range(prompt_length) if mask[ask, p]] + list(key[row, group])
            values = [prompt_value[ask, group, p] for p in range(prompt_length) if mask[ask, p]] + list(
                value[row, group]
            )
            weights = torch.tensor([float(query[row, head, 0] @ k) * 0.3 for k in keys]).double().exp()
            expected = sum(w * v for w, v in zip(weights / weights.sum(), values, strict=True))
            torch.testing.assert_close(found[row, 0, head], expected, rtol=1e-5, atol=1e-6)


def test_sampling_draws_by_probability_with_the_rows_own_numbers() -> None:
    scores = torch.tensor([[0.1, 0.2, 0.0, 0.7], [0.5, 0.0, 0.25, 0.25]]).log()
    drawn = {
        step: SeededChoice(torch.tensor(uniforms))(torch.zeros(2, step + 1, dtype=torch.long), scores)
        .argmax(1)
        .tolist()
        for step, uniforms in enumerate([[[0.05], [0.49]], [[9.0, 0.11], [9.0, 0.51]], [[9, 9, 0.31], [9, 9, 0.999]]])
    }
    assert drawn == {0: [0, 0], 1: [1, 2], 2: [3, 3]}
    many = SeededChoice(torch.rand(20_000, 1, generator=torch.Generator().manual_seed(0)))
    tokens = many(torch.zeros(20_000, 1, dtype=torch.long), scores[:1].expand(20_000, -1)).argmax(1)
    shares = torch.bincount(tokens, minlength=4) / 20_000
    torch.testing.assert_close(shares, scores[0].exp(), rtol=0, atol=0.01)


def test_drawing_is_the_inverse_of_the_running_sum() -> None:
    """A vocabulary of several blocks, the last one short, whole blocks of it impossible; against a plain sum."""
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(1, 1733, generator=generator) * 2
    scores[:, 400:1100] = -torch.inf
    scores[:, 1700:] = -torch.inf
    sums = scores[0].double().softmax(0).cumsum(0)
    uniforms = torch.cat([torch.rand(500, generator=generator).double(), torch.tensor([0.0, 1 - 2**-53])])
    many = scores.expand(len(uniforms), -1)
    drawn = SeededChoice(uniforms[:, None])(torch.zeros(len(uniforms), 1, dtype=torch.long), many).argmax(1)
    for token, uniform in zip(drawn.tolist(), uniforms.tolist(), strict=True):
        before = float(sums[token - 1]) if token else 0.0
        assert before - 1e-6 <= uniform <= float(sums[token]) + 1e-6
        assert scores[0, token] > -torch.inf
    assert len(set(drawn.tolist())) > 100


def test_a_samples_chance_is_its_own() -> None:
    decoding = Decoding(max_new_tokens=NEW_TOKENS, temperature=1.0, num_candidates=2)
    base = uniforms_of("dog-1", 0, decoding)
    assert base.shape == (NEW_TOKENS,)
    for other in (("dog-2", 0, decoding), ("dog-1", 1, decoding), ("dog-1", 0, replace(decoding, seed=1))):
        assert (uniforms_of(*other) != base).all()
    assert (uniforms_of("dog-1", 0, replace(decoding, num_candidates=9)) == base).all()


@pytest.mark.parametrize("how", [{}, {"num_beams": 3}, {"temperature": 0.8, "num_candidates": 4}])
def test_two_copies_of_one_checkpoint_are_that_checkpoint(
    how: dict[str, float],
    model: IntentVCNetForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    views: list[Viewpoint],
    samples: list[list[Sample]],
) -> None:
    clips = clips_of(samples, views)
    alone = captioners([model], tokenizer, **how)(clips)
    assert captioners([model, model], tokenizer, weights=[3, 2], **how)(clips) == alone


def test_members_choose_by_the_weighted_mean_of_their_log_probabilities(
    model: IntentVCNetForConditionalGeneration,
    captioner_folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    views: list[Viewpoint],
    samples: list[list[Sample]],
) -> None:
    """Greedily, against whole forward passes of each member over its own prompt, with other frames and weights."""
    other = load_captioner(captioner_folder, dtype=torch.float32)
    randomise(other.lm_head.parameters(), seed=8)
    clips = clips_of([samples[1]], views)
    (text,) = captioners([model, other], tokenizer, weights=[3, 1], views=[0, 1])(clips)[0]
    chosen: list[int] = []
    for _ in range(NEW_TOKENS):
        mixed = torch.zeros(model.config.text_config.vocab_size)
        for member, view, weight in ((model, 0, 0.75), (other, 1, 0.25)):
            clip = clips[0].views[view]
            ids = torch.tensor([clip.prompts[0].input_ids + chosen])
            with torch.inference_mode():
                logits = member(input_ids=ids, vision={**clip.vision, **clip.prompts[0].tensors}).logits[0, -1]
            mixed += weight * logits.log_softmax(-1)
        chosen.append(int(mixed.argmax()))
        if chosen[-1] == tokenizer.eos_token_id:
            break
    assert text == tokenizer.decode(chosen, skip_special_tokens=True).strip()
    assert text not in [captioners([m], tokenizer, views=[v])(clips)[0][0] for m, v in ((model, 0), (other, 1))]


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -2.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_weights_are_positive_and_one_a_member(weights: list[float]) -> None:
    with pytest.raises(UserError, match="--weights .*2 positive"):
        normalised_weights(2, weights)


def test_weights_are_normalised() -> None:
    assert normalised_weights(2, [3, 1]) == [0.75, 0.25]
    assert normalised_weights(4, None) == [0.25] * 4

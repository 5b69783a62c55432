"""BERTScore with a tiny BERT: the formula written out gives the same, and what cannot be scored is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from internvl_chat.__main__ import main
from internvl_chat.contracts import UserError
from internvl_chat.scoring.captions.bert_scores import bert_score_sums
from tests.helpers import randomise

LAYER, WORDS = 2, "[PAD] [UNK] [CLS] [SEP] [MASK] a dog cat runs sits on the grass red . over there".split()
SAID = ["a dog runs", "", "the red cat sits there", "a cat"]
TRUE = [["the dog runs .", "a cat over there"], ["a dog"], ["a cat sits on the grass"], ["a cat"]]


@pytest.fixture
def needs_package() -> None:
    pytest.importorskip("bert_score", reason="BERTScore needs requirements/bertscore.txt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert")
    (path / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(path / "vocab.txt"), model_max_length=32).save_pretrained(path)
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 36}
    model = BertModel(BertConfig(vocab_size=len(WORDS), **sizes))
    randomise(model.parameters(), std=0.5)
    model.save_pretrained(path)
    return path


def written_out(said: str, true: str, folder: Path) -> list[float]:
    """Precision, recall and F1 in plain loops: each word with the most alike token of the other text."""
    tokenizer, model = BertTokenizerFast.from_pretrained(folder), BertModel.from_pretrained(folder).eval()

    def embedded(text: str) -> np.ndarray:
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[LAYER][0]
        vectors = states.double().numpy()
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def matched(one: np.ndarray, other: np.ndarray) -> float:
        # The marks of beginning and end are matched with, and not counted.
        return float(np.mean([max(float(word @ token) for token in other) for word in one[1:-1]]))

    own, reference = embedded(said), embedded(true)
    precision, recall = matched(own, reference), matched(reference, own)
    return [precision, recall, 2 * precision * recall / (precision + recall)]


@pytest.mark.usefixtures("needs_package")
def test_the_command_reports_the_formulas_scores(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [
        np.max([written_out(said, text, folder) for text in true], axis=0) if said else np.zeros(3)
        for said, true in zip(SAID, TRUE, strict=True)
    ]
    sums = bert_score_sums(SAID, TRUE, folder, LAYER, device="cpu")
    assert sums == pytest.approx(np.array(expected), abs=2e-6)
    assert sums[3] == pytest.approx(1, abs=1e-6) and (sums[0] < 0.999).all()
    items = [
        {"video_name": str(n), "groundtruth": true[0], "pred": said}
        for n, (said, true) in enumerate(zip(SAID, TRUE, strict=True))
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    flags = ["--bertscore", str(folder), "--bertscore_layer", str(LAYER)]
    assert main(["score-answers", str(path), "--as", "captions", "--no_java", *flags]) == 0
    result = json.loads(capsys.readouterr().out)
    alone = bert_score_sums(SAID, [true[:1] for true in TRUE], folder, LAYER).mean(axis=0)
    assert [result["scores"][f"BERTScore-{part}"] for part in ("P", "R", "F1")] == pytest.approx(alone.tolist())
    assert set(result["intervals"]) == set(result["scores"])


@pytest.mark.usefixtures("needs_package")
def test_what_cannot_be_scored_is_told(folder: Path, tmp_path: Path) -> None:
    for at, layer, message in (
        (tmp_path, 1, "holds no model and tokenizer"),
        (folder, None, "has 3 layers, and none is known to be compared: give --bertscore_layer"),
        (folder, 4, "has 3 layers, and --bertscore_layer is 4"),
    ):
        with pytest.raises(UserError, match=message):
            bert_score_sums(SAID, TRUE, at, layer)


def test_the_package_is_named_where_it_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bert_score", None)
    with pytest.raises(UserError, match=r"--bertscore: install requirements/bertscore\.txt"):
        bert_score_sums(SAID, TRUE, folder, LAYER)

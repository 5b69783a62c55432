"""Fixtures that several rooms use: a tokenizer and a prepared dataset of moving shapes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

# No test reaches for the hub; this must stand before transformers is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
# A Python below that is told to abort, since it never ends, prints its stacks first.
os.environ["PYTHONFAULTHANDLER"] = "1"

import torch  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from internvl_chat.__main__ import main as command_line  # noqa: E402
from internvl_chat.constants import IMG_CONTEXT  # noqa: E402
from internvl_chat.data.prompts.encoder import PromptConfig, SampleEncoder  # noqa: E402
from internvl_chat.data.records.annotations import DatasetEntry, load_meta, read_captions  # noqa: E402
from internvl_chat.data.records.box_files import PrepareReport, find_videos, prepare_boxes  # noqa: E402
from internvl_chat.data.synthetic.shapes import write_dataset  # noqa: E402
from internvl_chat.model.families.internvl import IntentVCNetConfig, IntentVCNetForConditionalGeneration  # noqa: E402
from internvl_chat.processes import collect_rarely  # noqa: E402
from tests.helpers import TILE_PX, TOKENS_PER_FRAME, byte_tokenizer, randomise, tiny_config  # noqa: E402

torch.set_num_threads(1)
# As in the programs: what was imported is not looked through again and again.
collect_rarely()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Moving shapes as the generator writes them, without npy files; read only."""
    root = tmp_path_factory.mktemp("shapes") / "raw"
    write_dataset(root, train_clips=3, public_clips=2, private_clips=1, seed=4, absent_share=0.5)
    return root


@pytest.fixture
def raw_root(shapes_root: Path, tmp_path: Path) -> Path:
    """A copy of the shapes that a test may change."""
    return Path(shutil.copytree(shapes_root, tmp_path / "raw"))


@pytest.fixture(scope="session")
def shapes_meta(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Meta JSON of the shapes with npy boxes and annotation; read only."""
    folder = tmp_path_factory.mktemp("prepared")
    root = Path(shutil.copytree(shapes_root, folder / "data"))
    report = PrepareReport()
    list(prepare_boxes(find_videos(root), workers=1, overwrite=False, report=report))
    assert not report.failed
    argv = ["annotate", "--captions", root / "train.json", "--out", folder / "train.jsonl"]
    argv += ["--meta_out", folder / "meta.json", "--root", root]
    assert command_line([str(arg) for arg in argv]) == 0
    return folder / "meta.json"


@pytest.fixture(scope="session")
def shapes_entry(shapes_meta: Path) -> DatasetEntry:
    return load_meta(shapes_meta)[0]


@pytest.fixture
def own_entry(shapes_meta: Path, tmp_path: Path) -> DatasetEntry:
    """A prepared dataset that a test may change."""
    shutil.copytree(shapes_meta.parent, tmp_path / "own")
    meta = tmp_path / "own" / "meta.json"
    fields = json.loads(meta.read_text())
    fields["captions"] |= {"root": str(tmp_path / "own" / "data"), "annotation": str(tmp_path / "own" / "train.jsonl")}
    meta.write_text(json.dumps(fields))
    return load_meta(meta)[0]


@pytest.fixture(scope="session")
def encoder(tokenizer: PreTrainedTokenizerFast) -> SampleEncoder:
    return SampleEncoder(tokenizer, PromptConfig.of("internvl2_5", force_image_size=28, tokens_per_frame=3))


@pytest.fixture(scope="session")
def captioner_folder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny model of random weights with its tokenizer and prompt configuration; read only."""
    folder = tmp_path_factory.mktemp("captioner") / "tiny"
    text = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = tiny_config(text=text, image_token_id=tokenizer.convert_tokens_to_ids(IMG_CONTEXT))
    torch.manual_seed(3)
    model = IntentVCNetForConditionalGeneration(IntentVCNetConfig.from_base(config, 2))
    randomise(p for n, p in model.named_parameters() if ".box_adapters." in n)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    PromptConfig.of("internvl2_5", TILE_PX, TOKENS_PER_FRAME).save(folder)
    return folder


@pytest.fixture(scope="session")
def captions_file() -> Path:
    """Twelve made-up videos of four categories with five captions each, in the challenge's form."""
    return Path(__file__).parent / "files" / "captions.json"


@pytest.fixture(scope="session")
def captions(captions_file: Path) -> dict[str, list[str]]:
    return read_captions(captions_file)

"""A family is added as docs/adding/family.md says: one file, one folder, a line of the table; then it is everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from internvl_chat.files import write_jsonl
from tests.data.clips import write_clip
from tests.helpers import ROOT, linked_package, run_python

pytestmark = pytest.mark.process

FILES = Path(__file__).with_name("made_up")
MODEL_HALF = ("configuration.py", "model.py", "original.py", "parts.py")
LINE = '    Family("made_up", ("made_up",), ("made_up_chat",)),\n'
# A base, a run, its merged model, and what both say of the records they were trained on.
_PROBE = """
import json, sys
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, LlamaConfig

from internvl_chat.__main__ import main
from internvl_chat.families import FAMILIES
from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments, train
from tests.helpers import byte_tokenizer

folder = Path(sys.argv[1])
family = FAMILIES[-1]
tokenizer = byte_tokenizer()
tokenizer.add_tokens(list(family.data.SPECIAL_TOKENS), special_tokens=True)
image_token_id = tokenizer.convert_tokens_to_ids(family.data.IMAGE_TOKEN)
vision = CLIPVisionConfig(
    hidden_size=8, intermediate_size=18, num_hidden_layers=3, num_attention_heads=2, image_size=20, patch_size=10
)
text = LlamaConfig(
    vocab_size=len(tokenizer),
    hidden_size=12,
    intermediate_size=22,
    num_hidden_layers=2,
    num_attention_heads=3,
    pad_token_id=0,
    eos_token_id=tokenizer.eos_token_id,
    initializer_range=0.3,
)
torch.manual_seed(0)
config = family.configuration.MadeUpConfig(vision_config=vision, text_config=text, image_token_index=image_token_id)
family.model.Captioner(config).save_pretrained(folder / "base")
tokenizer.save_pretrained(folder / "base")
flags = (
    "--conv_style made_up_chat --normalize_type clip --force_image_size 20 --num_adapter_layers 0 --use_llm_lora 2 "
    "--freeze_backbone True --coordinates on --min_num_frame 2 --max_num_frame 2 --max_steps 2 --report_to none "
    "--learning_rate 5e-2 --save_strategy no --dataloader_num_workers 0"
).split()
paths = ["--model_name_or_path", folder / "base", "--meta_path", folder / "meta.json", "--output_dir", folder / "run"]
train(parse_arguments([*map(str, paths), *flags]))
assert main(["merge", str(folder / "run"), str(folder / "merged")]) == 0
assert main(["verify", "--checkpoint_path", str(folder / "run"), "--num_frames", "2", "--max_new_tokens", "3"]) == 0
for model in ("base", "run", "merged"):
    argv = ["answer", "--model", folder / model, "--records", folder / "train.jsonl"]
    argv += ["--out", folder / f"{model}.jsonl"]
    assert main([str(word) for word in [*argv, "--num_workers", 0, "--max_new_tokens", 6, "--num_frames", 2]]) == 0
assert main(["inspect", str(folder / "run"), "--json"]) == 0
"""


def test_a_family_is_one_file_one_folder_and_a_line(tmp_path: Path) -> None:
    package = linked_package(tmp_path)
    before = {path for path in package.rglob("*") if path.is_file()}
    (package / "internvl_chat/data/families/made_up.py").write_text((FILES / "data.py").read_text())
    half = package / "internvl_chat/model/families/made_up"
    half.mkdir()
    for name in ("__init__.py", *MODEL_HALF):
        (half / name).write_text((FILES / name).read_text())
    table = package / "internvl_chat/families/__init__.py"
    text = table.read_text()
    table.unlink()
    table.write_text(text.replace(")\n_BY_TYPE", f"{LINE})\n_BY_TYPE"))
    assert table.read_text().count("\n") == text.count("\n") + 1
    assert len({path for path in package.rglob("*") if path.is_file()} - before) == 2 + len(MODEL_HALF)

    write_clip(tmp_path / "a.mp4", 5)
    turns = [{"from": "human", "value": "<video>\nWhat does it do?"}, {"from": "gpt", "value": "It runs."}]
    track = {"name": "dog", "boxes": {"1": [5, 5, 30, 35]}, "unit": "pixels", "order": "xyxy"}
    alone = [{"from": "human", "value": "And without?"}, {"from": "gpt", "value": "Nothing."}]
    records = [
        {"id": 1, "video": "a.mp4", "tracks": [track], "conversations": turns},
        {"id": 2, "conversations": alone},
    ]
    write_jsonl(tmp_path / "train.jsonl", records)
    meta = {"clips": {"root": str(tmp_path), "annotation": str(tmp_path / "train.jsonl")}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    first = f"import sys; sys.path.insert(0, {str(package)!r})\n"
    done = run_python("-c", first + _PROBE, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    base, run, merged = ((tmp_path / f"{name}.jsonl").read_text() for name in ("base", "run", "merged"))
    assert run == merged != base
    report = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert (report["template"], report["language_model"]) == ("made_up_chat", "llama")
    assert report["trained"].keys() == {"projector", "LoRA"}


def test_the_guide_names_these_files() -> None:
    guide = (ROOT / "docs" / "adding" / "family.md").read_text(encoding="utf-8")
    assert all(f"`model/families/<name>/{name}`" in guide for name in MODEL_HALF)
    assert "`data/families/<name>.py`" in guide

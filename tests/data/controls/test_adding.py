"""A control is added as docs/adding/control.md says: with one file, and it is everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers import package_with_example, run_python

pytestmark = pytest.mark.process

# What a user would look at, in one process: the flag and its help, the rows, a prompt, and what is saved.
_PROBE = """
import io, json, sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from internvl_chat.commands.ablation import Row
from internvl_chat.choices import CONTROLS
from internvl_chat.contracts import Sample, TrackRows
from internvl_chat.data.controls.base import switches
from internvl_chat.data.prompts.encoder import SampleEncoder
from internvl_chat.data.prompts.prompt_config import PromptConfig
from internvl_chat.data.prompts.wordings import question_turn, wording_named
from internvl_chat.train.finetune_w_bboxes_ml import parse_arguments
from tests.helpers import byte_tokenizer

picture, folder = map(Path, sys.argv[1:])
flags = ["--model_name_or_path", "m", "--meta_path", "m.json", "--output_dir", "o", *switches(["side", "coordinates"])]
run = parse_arguments(flags)
config = run.prompt_config(3)
config.save(folder)
corners = np.array([[0.6, 0.2, 0.9, 0.4]])
track = TrackRows("dog", np.zeros(1), corners, by="always")
question = question_turn("<image>\\n" + wording_named("text_only").asks(""))
sample = Sample("1", (question,), "a:1", image_paths=(picture,), tracks=(track,))
encoder = SampleEncoder(byte_tokenizer(), PromptConfig.load(folder))
text = encoder.tokenizer.decode(encoder.plan(sample, np.arange(1)).input_ids)
with redirect_stdout(io.StringIO()) as said:
    try:
        parse_arguments(["--help"])
    except SystemExit:
        pass
shown = {"controls": CONTROLS, "text": text, "help": said.getvalue(), "row": Row("text_only", "none", "side").flags()}
sys.stdout.write(json.dumps(shown | {"saved": json.loads((folder / "prompt_config.json").read_text())}))
"""


def test_the_example_is_a_control_with_one_file(media_root: Path, tmp_path: Path) -> None:
    package = package_with_example("docs/adding/control.md", tmp_path)
    first = f"import sys; sys.path.insert(0, {str(package)!r})\n"
    result = run_python("-c", first + _PROBE, media_root / "wide.png", tmp_path)
    assert result.returncode == 0, result.stderr
    shown = json.loads(result.stdout)
    assert "side" in shown["controls"]
    assert "Say on which side of the picture the object mostly is." in " ".join(shown["help"].split())
    assert shown["row"] == ["--num_adapter_layers", "0", "--side", "True"]
    assert shown["saved"]["side"] is True and shown["saved"]["coordinates"] == "on"
    assert "[[600, 200, 900, 400]]</box>\n. The dog is on the right.<|im_end|>" in shown["text"]

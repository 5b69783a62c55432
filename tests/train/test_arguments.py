"""The training script's flags and what they become."""

from __future__ import annotations

from dataclasses import MISSING, fields

from internvl_chat.data.prompt_config import PromptConfig
from internvl_chat.train.arguments import DataArguments


def test_every_setting_of_the_prompt_is_a_flag_with_the_same_default() -> None:
    flags = {field.name: field.default for field in fields(DataArguments)}
    settings = {field.name: field.default for field in fields(PromptConfig)}
    assert settings.keys() - flags.keys() == {"tokens_per_frame"}  # follows from the model
    optional = {name: default for name, default in settings.items() if default is not MISSING}
    # The flag's default is InternVL's; a configuration made without flags is IntentVCNet's.
    assert {name for name, default in optional.items() if flags[name] != default} == {"max_seq_length"}

"""Families of base models: one table, looked up by what a config.json says. Each brings two halves of fixed names.

The data half is the module `data/families/<name>.py`; the model half the folder `model/families/<name>/` with
`configuration.py`, `model.py`, `original.py` and `parts.py`, and what only some families have. A half is imported when
it is first asked for. What the modules must hold is written down in `halves.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from internvl_chat.contracts import UserError
from internvl_chat.families.halves import (
    ConfigurationModule,
    DataHalf,
    FeaturesModule,
    ModelModule,
    OriginalModule,
    PartsModule,
    RecordedModule,
    StartModule,
)

CONFIG_NAME = "config.json"


@dataclass(frozen=True)
class Family:
    """A family of base models.

    Args:
        name: of its module in `data/families/` and its folder in `model/families/`.
        model_types: what a config.json of the family says as `model_type`; where that is missing, its architecture.
        conv_styles: its conversation templates, first the one of a base that does not say.
    """

    name: str
    model_types: tuple[str, ...]
    conv_styles: tuple[str, ...]

    @property
    def data(self) -> DataHalf:
        half: Any = import_module(f"internvl_chat.data.families.{self.name}")
        return half

    @property
    def configuration(self) -> ConfigurationModule:
        return self._model_half("configuration")

    @property
    def model(self) -> ModelModule:
        return self._model_half("model")

    @property
    def original(self) -> OriginalModule:
        return self._model_half("original")

    @property
    def parts(self) -> PartsModule:
        return self._model_half("parts")

    @property
    def start(self) -> StartModule | None:
        return self._optional("start")

    @property
    def features(self) -> FeaturesModule | None:
        return self._optional("features")

    @property
    def recorded(self) -> RecordedModule | None:
        return self._optional("recorded")

    def _model_half(self, file: str) -> Any:
        return import_module(f"internvl_chat.model.families.{self.name}.{file}")

    def _optional(self, file: str) -> Any:
        """A file of the model half that not every family has."""
        return self._model_half(file) if find_spec(f"internvl_chat.model.families.{self.name}.{file}") else None


FAMILIES = (
    Family(
        "internvl",
        ("internvl_chat", "internvl", "intentvcnet"),
        ("internvl2_5", "internlm2-chat", "Hermes-2", "phi3-chat"),
    ),
    Family("minicpmv", ("minicpmv", "minicpmv2_5"), ("minicpmv2_5",)),
    Family("artemis", ("artemis", "llava"), ("vicuna_v1",)),
    Family("idefics3", ("idefics3", "intentvcnet_idefics3"), ("idefics3",)),
    Family(
        "cogvlm2_video",
        ("CogVLMVideoForCausalLM", "cogvlm2_video"),
        ("cogvlm2-chat", "cogvlm2-vqa", "cogvlm2-base"),
    ),
)
_BY_TYPE = {model_type: family for family in FAMILIES for model_type in family.model_types}
_BY_STYLE = {style: family for family in FAMILIES for style in family.conv_styles}
CONV_STYLES = tuple(_BY_STYLE)


def family_of(config: Any) -> Family:
    """The family of a configuration object."""
    return _BY_TYPE[config.model_type]


def family_of_style(conv_style: str) -> Family:
    """The family that a conversation template belongs to.

    Raises:
        UserError: there is none of that name.
    """
    if conv_style not in _BY_STYLE:
        raise UserError(f"unknown --conv_style {conv_style!r}: expected one of {', '.join(CONV_STYLES)}")
    return _BY_STYLE[conv_style]


def style_called(name: str, family: Family) -> str:
    """The family's conversation template of a name, or of one that ends so: `vqa` is `cogvlm2-vqa`.

    Raises:
        UserError: there is none.
    """
    for style in family.conv_styles:
        if style == name or style.endswith(f"-{name}"):
            return style
    raise UserError(f"--template {name}: expected one of {', '.join(family.conv_styles)} for this model")


def family_of_fields(fields: Mapping[str, Any], where: str | Path) -> Family:
    """The family of a config.json's content; `where` it stands, for messages.

    Raises:
        UserError: it is of none.
    """
    kind = fields.get("model_type") or next(iter(fields.get("architectures") or ()), None)
    if kind not in _BY_TYPE:
        raise UserError(f"{where}: is a {kind!r} model, expected one of {', '.join(map(repr, _BY_TYPE))}")
    return _BY_TYPE[kind]


def is_hub_id(model: str) -> bool:
    """Whether a model's name can be one of the hub, OWNER/NAME, rather than a path that somebody meant."""
    return model.count("/") == 1 and not model.startswith((".", "/", "~"))


def read_config_file(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json.

    Raises:
        UserError: it is not there, or no JSON of a model.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        inside = sorted(file.parent for file in folder.glob(f"*/{CONFIG_NAME}"))
        hint = f"; did you mean {inside[-1]}?" if inside else ""
        raise UserError(f"{folder}: is no checkpoint: it holds no {CONFIG_NAME}{hint}")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(fields, dict) or not (fields.get("model_type") or fields.get("architectures")):
        raise UserError(f"{path}: names no model_type; expected one of {', '.join(map(repr, _BY_TYPE))}")
    return fields


def family_in(folder: Path) -> Family:
    """The family of a checkpoint folder.

    Raises:
        UserError: it has no config.json, or one of no known family.
    """
    return family_of_fields(read_config_file(folder), folder)


def check_supported(flags: Mapping[str, Any], family: Family) -> None:
    """Hold the training script's flags against what a family computes.

    Raises:
        UserError: one asks for something else.
    """
    for flag, only in family.parts.SUPPORTED_FLAGS.items():
        if flags[flag] != only:
            raise UserError(f"--{flag} {flags[flag]}: expected {only} for this model")


def check_style(conv_style: str, of_checkpoint: str | None, family: Family) -> None:
    """Hold a conversation template against a checkpoint.

    Args:
        of_checkpoint: the name of the template that it was made with, if it says so.
    Raises:
        UserError: there is no such template, it belongs to other models, or the checkpoint was made with another.
    """
    if family_of_style(conv_style) != family:
        raise UserError(f"--conv_style {conv_style}: expected one of {', '.join(family.conv_styles)} for this model")
    if of_checkpoint not in (None, conv_style):
        raise UserError(
            f"--conv_style {conv_style}: the checkpoint was trained with {of_checkpoint!r}; "
            f"give --conv_style {of_checkpoint}"
        )

"""Families of base models: one table, looked up by what a config.json says. Each brings two halves of fixed names.

The data half is the module `data/families/<name>.py`; the model half the folder `model/families/<name>/` with
`configuration.py`, `model.py`, `original.py` and `parts.py`. A half is imported when it is first asked for. What the
modules must hold is written down in the protocols below; nothing else of a family is known outside its files.

Shape letters: B samples, L text positions, D the language model's width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from internvl_chat.contracts import Turn, UserError
from internvl_chat.vision import Vision

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

CONFIG_NAME = "config.json"


class DataHalf(Protocol):
    """What `data/families/<name>.py` holds.

    `config` is the sample's `PromptConfig`; `views` has a list of `View` a picture: what its tiles show.
    """

    # What stands for a picture's tokens in a tokenizer, and the special tokens that are appended where they lack.
    IMAGE_TOKEN: str
    SPECIAL_TOKENS: tuple[str, ...]

    def views(
        self, sizes_px: Sequence[tuple[int, int]], config: Any, max_tiles: int, is_video: bool
    ) -> list[list[Any]]:
        """What is shown of pictures of these sizes, each of them cut into at most `max_tiles` tiles."""

    def pixels(self, pictures: Any, views: Sequence[Any], config: Any) -> Vision:
        """The tensors of what is shown; `pictures` are `SamplePictures`, read when they are asked for."""

    def blank(self, config: Any) -> Vision:
        """What a row of text alone brings, so that all ranks run the same layers."""

    def num_tiles(self, vision: Vision) -> int:
        """How many tiles the tensors hold, for the log."""

    def expand_video(self, text: str, num_frames: int, config: Any, extra_lines: Sequence[str]) -> str:
        """A question with its `<video>` and line break replaced by an `<image>` a frame, and the lines of extra views.

        Raises:
            ValueError: it does not hold one `<video>` followed by a line break.
        """

    def encode(
        self, turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase, config: Any, views: Sequence[Sequence[Any]]
    ) -> Any:
        """`EncodedConversation` of a conversation with one `<image>` a picture; a prompt where a human speaks last.

        Raises:
            ValueError: the turns cannot be written, or their placeholders do not match `views`.
        """

    def end_tokens(self, config: Any) -> tuple[str, ...]:
        """The tokens that end an answer, beside the tokenizer's own."""


class ConfigurationModule(Protocol):
    """What `model/families/<name>/configuration.py` holds.

    Its class of configuration, registered with `AutoConfig`, has `text_config`, `image_token_id`, and the fields
    `base_model_name_or_path`, `base_fingerprint`, `num_added_tokens` and `original` (see `IntentVCNetConfig`).
    """

    def captioner_config(self, base: PreTrainedConfig, num_adapter_layers: int) -> Any:
        """The configuration of the model that is trained on a base; one that already is such is taken as it is.

        Raises:
            UserError: box adapters are asked for, and the family has no place for them.
        """

    def num_adapters(self, config: PreTrainedConfig) -> int:
        """Box adapters of a model."""


class ModelModule(Protocol):
    """What `model/families/<name>/model.py` holds.

    `Captioner(config)` is a transformers model that is called with `vision`, see `model/captioning.py`. Its `model` has
    `embed_prompt(input_ids [B, L], vision) -> ([B, L, D], position ids [B, L] or None)`, `language_model` (of
    transformers, without head) and `spread(visions, rows)`; its `lm_head` is a `LanguageHead`.
    """

    Captioner: Any


class OriginalModule(Protocol):
    """What `model/families/<name>/original.py` holds: files in the original's layout, and on the hub, to names here."""

    # Whether there is a layout beside transformers'; where there is none the first four are never called, or refuse.
    HAS_ORIGINAL_LAYOUT: bool

    def is_original(self, fields: Mapping[str, Any]) -> bool:
        """Whether a config.json is in the original layout."""

    def native_config(self, fields: dict[str, Any], folder: Path) -> Any:
        """The configuration here of an original config.json; the files beside it tell what it does not say."""

    def original_config(self, config: Any) -> dict[str, Any]:
        """The way back."""

    def weight_map(self, config: Any) -> Any:
        """The `WeightMap` between the original's tensors and those here."""

    def open_original(self, folder: Path, config: Any, base_path: str | None) -> dict[str, Any]:
        """The tensors of an original folder by their names here, LoRA's pairs as they are; none is read.

        Args:
            base_path: where the rest of the model lies, if the layout keeps a part alone and that was moved.
        """

    def hub_to_native(self, name: str) -> str:
        """The name in memory of a tensor in files of transformers' layout."""

    def native_to_hub(self, name: str) -> str:
        """The way back, to the name that the hub's files have."""

    def hub_config(self, config: Any, is_plain: bool) -> dict[str, Any]:
        """What config.json says in transformers' layout; `is_plain`: nothing of ours is inside."""

    def language_model_kind(self, config: Any) -> str:
        """What its language model is called, for people."""

    def case_inputs(self, case: Mapping[str, torch.Tensor], config: Any) -> tuple[torch.Tensor, Vision]:
        """The ids [1, L] and the tensors of a recorded case; may set `config.image_token_id` to what the case uses."""


class PartsModule(Protocol):
    """What `model/families/<name>/parts.py` holds: its parts by name, and sizes read off a configuration."""

    NAMES: Any  # a `PartNames`
    FINGERPRINTED: tuple[str, ...]  # native names of small tensors that no two bases share
    DROP_SLOTS: tuple[str, ...]  # a tower layer's idle dropouts, one a branch; none: no stochastic depth
    CASE_TOLERANCE: float  # what a recorded case's numbers may differ by, see `parity.check_case`
    SUPPORTED_FLAGS: Mapping[str, object]  # flags of the training script of which the family computes one value only

    def placeholder_ids(self, config: Any) -> tuple[int, ...]:
        """Ids in whose places embeddings of pictures, or of what is in them, stand."""

    def tower_sizes(self, config: Any) -> Any:
        """`TowerSizes`, for the planner."""

    def tokens_per_tile(self, config: Any, tile_px: int) -> int:
        """Tokens that a tile of this side takes.

        Raises:
            UserError: it cannot have this side.
        """

    def template_of(self, config: Any) -> str | None:
        """The conversation template that the weights were made with; None where nothing tells."""

    def prompt_settings(self, config: Any) -> dict[str, Any]:
        """Fields of the `PromptConfig` of a base that says nothing."""

    def downsample_ratio(self, config: Any) -> float | None:
        """The pixel-shuffle ratio that the projector was made for; None where there is no such thing."""

    def with_tile_side(self, config: Any, tile_px: int | None) -> None:
        """Set the side of the tiles it will see, in place; None is what the checkpoint says.

        Raises:
            UserError: it cannot have this side.
        """

    def fit_tables(self, tensors: dict[str, Any], expected: Mapping[str, torch.Size]) -> None:
        """Resize what depends on the tile's side, in place."""

    def without_lora(self, config: Any) -> None:
        """Take out of a configuration, in place, what says that LoRA is inside."""

    def note(self, config: Any) -> str | None:
        """What is to be said when weights of this configuration are loaded."""


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

    def _model_half(self, file: str) -> Any:
        return import_module(f"internvl_chat.model.families.{self.name}.{file}")


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


def read_config_file(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json.

    Raises:
        UserError: it is not there, or no JSON of a model.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise UserError(f"{folder}: is no checkpoint: it holds no {CONFIG_NAME}")
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

"""What the two halves of a family hold, file by file; nothing else of a family is known outside its files.

Shape letters: B samples, L text positions, D the language model's width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from internvl_chat.contracts import Turn
from internvl_chat.vision import Vision

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


class DataHalf(Protocol):
    """What `data/families/<name>.py` holds.

    `config` is the sample's `PromptConfig`; `views` has a list of `View` a picture: what its tiles show.
    """

    # What stands for a picture's tokens in a tokenizer, and the special tokens that are appended where they lack.
    IMAGE_TOKEN: str
    SPECIAL_TOKENS: tuple[str, ...]

    # `SHOWS_FRAMES_ONCE` may say that a video with fewer frames than are asked for is not filled up with its last one.

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


class StartModule(Protocol):
    """What `model/families/<name>/start.py` holds, of a family that begins as a bare language model and a tower."""

    LANGUAGE_MODELS: tuple[str, ...]  # what config.json of such a language model says as `model_type`

    def write_start(self, language_model: Path, tower: Path, folder: Path) -> None:
        """Write the base that the two begin as.

        Raises:
            UserError: one of them holds no weights, or is another model.
        """


class FeaturesModule(Protocol):
    """What `model/families/<name>/features.py` holds, of a family that reads features of videos in place of them."""

    VideoTower: Any  # `VideoTower(folder, base_path, device, dtype, batch_frames)(frames [F, 3, S, S])`: features

    def tower_mark(self, folder: Path, base_path: str | None) -> tuple[float, ...]:
        """Numbers that tell a model's tower from others, whatever the dtype of its files.

        Raises:
            UserError: its weights, or its base's, cannot be read.
        """

    def features_shape(self, folder: Path) -> tuple[int, int, int]:
        """Rows of frames and of patches of a video's features, and their width."""


class RecordedModule(Protocol):
    """What `model/families/<name>/recorded.py` holds, of a family whose recorded cases have a form of their own."""

    def is_case(self, folder: Path) -> bool:
        """Whether a folder is such a case."""

    def check_recorded(self, folder: Path) -> dict[str, float]:
        """The largest difference of each result, computed in fp32, from what a case holds.

        Raises:
            UserError: the folder is no such case.
        """

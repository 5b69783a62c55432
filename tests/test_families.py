"""The table of families: what each brings is what the seam asks for, and the guide names all of it."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest

from internvl_chat.contracts import UserError
from internvl_chat.families import FAMILIES, Family, family_of_fields, family_of_style, halves
from internvl_chat.vision import joined
from tests.helpers import ROOT

HALVES: dict[str, Any] = {
    "data": halves.DataHalf,
    "configuration": halves.ConfigurationModule,
    "model": halves.ModelModule,
    "original": halves.OriginalModule,
    "parts": halves.PartsModule,
}
# Files that only some families have.
OPTIONAL: dict[str, Any] = {
    "features": halves.FeaturesModule,
    "recorded": halves.RecordedModule,
    "start": halves.StartModule,
}


def members(protocol: Any) -> dict[str, list[str] | None]:
    """What a module must hold: functions with the names of their parameters, and values (None)."""
    functions = {
        name: list(inspect.signature(value).parameters)[1:]
        for name, value in vars(protocol).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    return {**dict.fromkeys(protocol.__annotations__), **functions}


def check_members(module: ModuleType, protocol: Any) -> None:
    asked = members(protocol)
    assert asked
    for name, parameters in asked.items():
        assert hasattr(module, name), name
        if parameters is not None:
            assert list(inspect.signature(getattr(module, name)).parameters) == parameters, name


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("half", HALVES)
def test_a_family_brings_what_the_seam_asks_for(half: str, family: Family) -> None:
    check_members(getattr(family, half), HALVES[half])


@pytest.mark.parametrize("file", OPTIONAL)
def test_what_only_some_families_have_is_what_the_seam_asks_for(file: str) -> None:
    found = [getattr(family, file) for family in FAMILIES]
    assert None in found and any(found)
    for module in filter(None, found):
        check_members(module, OPTIONAL[file])


def test_the_guide_names_all_of_it() -> None:
    guide = (ROOT / "docs" / "adding" / "family.md").read_text(encoding="utf-8")
    asked = [name for half in (*HALVES.values(), *OPTIONAL.values()) for name in members(half)]
    assert [name for name in asked if f"`{name}`" not in guide] == []


def test_no_two_families_claim_the_same() -> None:
    for claims in ([f.model_types for f in FAMILIES], [f.conv_styles for f in FAMILIES], [(f.name,) for f in FAMILIES]):
        every = [claim for of_one in claims for claim in of_one]
        assert len(every) == len(set(every))


def test_a_family_is_found_by_type_by_architecture_and_by_template() -> None:
    for family in FAMILIES:
        for kind in family.model_types:
            assert family_of_fields({"model_type": kind}, "here") == family
            assert family_of_fields({"architectures": [kind]}, "here") == family
        assert all(family_of_style(style) == family for style in family.conv_styles)
    with pytest.raises(UserError, match=r"here: is a 'bert' model, expected one of 'internvl_chat'"):
        family_of_fields({"model_type": "bert", "architectures": ["idefics3"]}, "here")


def test_samples_are_joined_along_the_first_axis_whatever_the_tensor() -> None:
    import torch

    one = {"patches": torch.ones(3, 2), "sizes": torch.tensor([[1, 3]])}
    other = {"patches": torch.zeros(5, 2), "sizes": torch.tensor([[5, 1], [0, 0]])}
    both = joined([one, {}, other])
    assert both["patches"].tolist() == [[1, 1]] * 3 + [[0, 0]] * 5
    assert both["sizes"].tolist() == [[1, 3], [5, 1], [0, 0]]
    assert joined([{}, {}]) == {}

"""What the HTML reports share: one template folder, pictures inside the page, and how runs were made."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunFacts:
    """How a run was made, as a table's row: what its `run.json` says, empty where it does not."""

    run: str
    model: str = ""
    data: str = ""
    sampling: str = ""
    date: str = ""
    command: str = ""

    @classmethod
    def of(cls, run: str, facts: Mapping[str, Any]) -> RunFacts:
        """The row of a run; what others wrote into the file is taken as text."""
        decoding = facts.get("decoding")
        words = [f"{facts['num_frames']} frames"] if "num_frames" in facts else []
        words += [f"chosen {facts['frames_chosen']}"] if "frames_chosen" in facts else []
        words += [f"{name} {value}" for name, value in decoding.items()] if isinstance(decoding, dict) else []
        model, data, date, command = (str(facts.get(key, "")) for key in ("model", "data", "date", "command"))
        return cls(run, model, data, ", ".join(words), date, command)

    @property
    def is_known(self) -> bool:
        return bool(self.model or self.data or self.command)


def data_uri(kind: str, content: bytes) -> str:
    """Bytes of a MIME type as a link that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def render(template: str, **values: Any) -> str:
    """A template of this folder as text; whatever a value says is text, not HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("internvl_chat", "reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)

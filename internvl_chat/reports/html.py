"""What the HTML reports share: one template folder, and pictures inside the page."""

from __future__ import annotations

import base64
from typing import Any


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

"""Captions of objects in videos: BLEU, METEOR, CIDEr and ROUGE-L, on IntentVC's folders or any records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internvl_chat.tasks.benchmark import Benchmark


def read(source: Path) -> Benchmark:
    """See `questions.read`; what asks a model needs torch, and scoring alone does not."""
    from internvl_chat.tasks.intentvc import questions

    return questions.read(source)

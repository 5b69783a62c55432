"""BERTScore by the `bert-score` package, with a model that lies on this machine.

Source: Zhang et al., BERTScore: Evaluating Text Generation with BERT, ICLR 2020, section 3; without idf weights, and
not rescaled by a baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from internvl_chat.contracts import UserError

# A tokenizer that states no length says a number like 1e30, and its encoder fails of it.
_MOST_TOKENS = 10**6


def bert_score_sums(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    folder: Path,
    layer: int | None = None,
    device: str | None = None,
) -> npt.NDArray[np.float64]:
    """Precision, recall and F1 [N, 3] of each prediction, each the best over its references; zeros of an empty one.

    Args:
        predictions: N texts.
        references: N lists of one text or more.
        folder: a model of transformers with its tokenizer.
        layer: whose hidden states are compared, from 1; None takes the one that the package has for a model of the
            folder's name.
        device: where it runs; None takes the first GPU, or the CPU where there is none.
    Raises:
        UserError: the package is missing, the model cannot be used, or no layer is known for it.
    """
    try:
        import bert_score
        from bert_score.utils import model2layers
    except ImportError as error:
        raise UserError(f"--bertscore: install requirements/bertscore.txt ({error})") from error
    from transformers import AutoConfig, AutoTokenizer

    try:
        num_layers = AutoConfig.from_pretrained(folder, local_files_only=True).num_hidden_layers
        length = AutoTokenizer.from_pretrained(folder, local_files_only=True).model_max_length
    except (AttributeError, OSError, ValueError) as error:
        raise UserError(f"--bertscore {folder}: holds no model and tokenizer of transformers ({error})") from error
    if length > _MOST_TOKENS:
        raise UserError(f"--bertscore {folder}: its tokenizer_config.json states no model_max_length, such as 512")
    layer = layer or model2layers.get(folder.resolve().name)
    if layer is None or layer > num_layers:
        raise UserError(
            f"--bertscore {folder}: has {num_layers} layers, and "
            + (f"--bertscore_layer is {layer}" if layer else "none is known to be compared: give --bertscore_layer")
        )
    sums = np.zeros((len(predictions), 3))
    said = [number for number, text in enumerate(predictions) if text.strip()]
    if said:
        scores = bert_score.score(
            [predictions[number] for number in said],
            [[text for text in references[number] if text.strip()] for number in said],
            model_type=str(folder.resolve()),
            num_layers=layer,
            device=device,
        )
        sums[said] = np.stack([part.double().numpy() for part in scores], axis=1)
    return sums

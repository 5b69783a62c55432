"""METEOR 1.5: its Java program, as pycocoevalcap starts it, and the score that follows from what it counts.

The program takes seconds to read its tables and so is kept for the next captions; it ends with this process.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import threading
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Tokens = dict[int, list[str]]

_one_at_a_time = threading.Lock()


def meteor_score(sums: FloatArray, _counts: FloatArray) -> dict[str, FloatArray]:
    """METEOR 1.5 of the [..., 23] numbers that its program gives a caption, with its English weights.

    Source: Denkowski and Lavie, Meteor Universal, WMT 2014, section 2.
    """
    alpha, beta, gamma, delta = 0.85, 0.2, 0.6, 0.75
    stage_weights = np.array([1.0, 0.6, 0.8, 0.6])
    stages = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 4)
    content, content_ref, function, function_ref = (stages[..., i] @ stage_weights for i in range(4))
    length, length_ref, num_function, num_function_ref = (sums[..., i] for i in range(4))

    def share(content: FloatArray, function: FloatArray, length: FloatArray, num_function: FloatArray) -> FloatArray:
        whole = delta * (length - num_function) + (1 - delta) * num_function
        return np.divide(delta * content + (1 - delta) * function, whole, out=np.zeros_like(whole), where=whole > 0)

    precision = share(content, function, length, num_function)
    recall = share(content_ref, function_ref, length_ref, num_function_ref)
    weighted = alpha * precision + (1 - alpha) * recall
    mean = np.divide(precision * recall, weighted, out=np.zeros_like(weighted), where=weighted > 0)
    matches = (sums[..., 21] + sums[..., 22]) / 2
    fragments = np.divide(sums[..., 20], matches, out=np.zeros_like(matches), where=matches > 0)
    return {"": mean * (1 - gamma * fragments**beta)}


def meteor_sums(truth: Tokens, said: Tokens) -> FloatArray:
    """What the program counts of each caption.

    Args:
        truth, said: PTB tokens, separated by spaces: references, and one caption, by the same numbers.
    Returns:
        [N, 23], in the order of `said`.
    Raises:
        OSError: there is no `java` on the path.
        subprocess.SubprocessError: the program ended on the way.
    """
    java = shutil.which("java")
    if java is None:
        raise FileNotFoundError("no 'java' on the path")
    with _one_at_a_time:
        # A forked process has none of its parent's: both would read from one pipe.
        program = _kept_program(java, os.getpid())
        program.heard.clear()
        try:
            program.compute_score(truth, said)
        except (OSError, ValueError) as error:
            program.end()
            _kept_program.cache_clear()
            raise subprocess.SubprocessError("METEOR's Java program ended before it had scored all captions") from error
        lines = list(program.heard)
    sums = np.array([[float(value) for value in line.split()] for line in lines])
    # As the program does: a caption equal to a reference is not charged for being one chunk.
    whole = (sums[:, 20] == 1) & (sums[:, 21] == sums[:, 0]) & (sums[:, 22] == sums[:, 1])
    sums[whole, 20] = 0
    return sums


@lru_cache(maxsize=1)
def _kept_program(java: str, process: int) -> Any:
    from pycocoevalcap.meteor.meteor import Meteor

    class KeptMeteor(Meteor):
        """Keeps what the program says of each caption, and ends it where it began, without waiting for anything."""

        def __init__(self) -> None:
            super().__init__()
            self.heard: list[str] = []

        def _stat(self, hypothesis_str: str, reference_list: list[str]) -> str:
            self.heard.append(super()._stat(hypothesis_str, reference_list))
            return self.heard[-1]

        def end(self) -> None:
            if os.getpid() == process and (program := vars(self).get("meteor_p")):
                program.kill()
                program.communicate()

        def __del__(self) -> None:
            """The scorer's own waits for a lock that a call which failed has never given back."""
            self.end()

    begun = KeptMeteor()
    atexit.register(begun.end)
    return begun

"""Any model of this project as a model of lmms-eval, asked as everywhere else: its own frames, prompts and batches.

python -m lmms_eval --model intentvcnet --model_args pretrained=CKPT --tasks tempcompass_yes_no --batch_size 1
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from internvl_chat.choices import VideoBackend
from internvl_chat.contracts import UserError
from internvl_chat.inference.decoding import Decoding
from internvl_chat.inference.handle import open_model
from internvl_chat.inference.predict import BatchLimits
from internvl_chat.inference.ranks import Ranks
from internvl_chat.inference.requests import Ask
from internvl_chat.inference.session import PredictionSession
from internvl_chat.lmms.documents import sample_of

UNREADABLE = ("stop", "empty")


class HarnessModel(lmms):
    """A base, a training checkpoint or a merged model of any family.

    Frames are chosen as the checkpoint stores it. All questions of a task are asked at once, so that those on one clip
    share its frames and its prompt; the harness's batch size decides nothing.

    Args:
        pretrained: folder or hub id.
        base: where a checkpoint's base lies now, if it was moved.
        num_frames: shown of a video; None is what training showed.
        progress: folder where finished answers are kept; the same command goes on there after a kill. None keeps them
            until the end of the run.
        unreadable: "empty" answers a question whose video cannot be read with nothing, which counts as wrong; "stop"
            ends the run and names them.
    Raises:
        UserError: the model or a setting cannot be used.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        base: str | None = None,
        num_frames: int | None = None,
        conv_style: str | None = None,
        video_backend: VideoBackend = "pyav",
        progress: str | None = None,
        unreadable: str = "stop",
        batch_size: int | str = 1,
        device: str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown:
            raise UserError(f"--model_args {', '.join(unknown)}: unknown; expected {', '.join(_model_args())}")
        if unreadable not in UNREADABLE:
            raise UserError(f"--model_args unreadable={unreadable}: expected one of {', '.join(UNREADABLE)}")
        del (
            batch_size,
            device,
        )  # Of the harness; the ranks say where the model lies, and memory how many are asked at once.
        joined = Ranks.join()
        self._rank, self._world_size = joined.rank, joined.size
        # Questions are shared out by the harness: here each process is alone on its device.
        ranks = Ranks(local_rank=joined.local_rank)
        self.opened = open_model(
            pretrained, base_path=base, conv_style=conv_style, video_backend=video_backend, ranks=ranks
        )
        self.num_frames = num_frames
        self.progress = progress and Path(progress) / f"rank{joined.rank}"
        self.unreadable = unreadable

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The answer to each request, cut at its stop texts.

        Raises:
            UserError: what a question shows cannot be asked about, or cannot be read.
        """
        texts = [""] * len(requests)
        together: dict[Decoding, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            together[decoding_of(request.args[1])].append(number)
        with tempfile.TemporaryDirectory() as pictures:
            for decoding, numbers in together.items():
                asks = [Ask(str(n), (self._sample(str(n), requests[n], Path(pictures)),)) for n in numbers]
                answers = self._answers(asks, decoding)
                for n in numbers:
                    texts[n] = cut(answers.get(str(n), ""), requests[n].args[1].get("until"))
                    self.cache_hook.add_partial("generate_until", requests[n].args[:2], texts[n])
        return texts

    def _sample(self, name: str, request: Instance, pictures: Path) -> Any:
        question, _, shown_in, doc_id, task, split = request.args
        return sample_of(name, question, list(shown_in(self.task_dict[task][split][doc_id]) or ()), pictures)

    def _answers(self, asks: Sequence[Ask], decoding: Decoding) -> Mapping[str, str]:
        with self._ledger() as folder:
            session = PredictionSession.alone(self.opened, self.num_frames)
            predictions = session.predict(asks, decoding, BatchLimits(), folder, keep_tags=True)
        if predictions.failures and self.unreadable == "stop":
            ask_id, reason = next(iter(predictions.failures.items()))
            raise UserError(
                f"{len(predictions.failures)} of {len(asks)} questions cannot be asked, such as {ask_id}: {reason}; "
                "--model_args unreadable=empty counts them as wrong"
            )
        return predictions.captions

    @contextlib.contextmanager
    def _ledger(self) -> Iterator[Path]:
        if self.progress:
            yield self.progress
            return
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)

    def loglikelihood(self, requests: Sequence[Instance]) -> NoReturn:
        raise UserError("intentvcnet writes answers and does not rate given ones: choose a task of generate_until")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> NoReturn:
        raise UserError("intentvcnet answers one question at a time: choose a task of generate_until")


def _model_args() -> tuple[str, ...]:
    return ("pretrained", "base", "num_frames", "conv_style", "video_backend", "progress", "unreadable")


def decoding_of(settings: Mapping[str, Any]) -> Decoding:
    """How a task wants its answers decoded; what it does not say is as everywhere in this project."""
    taken = {name: settings[name] for name in ("num_beams", "max_new_tokens", "top_p") if settings.get(name)}
    samples = settings.get("do_sample", True) and settings.get("temperature")
    return Decoding(**taken, temperature=float(samples or 0.0))


def cut(text: str, until: str | Sequence[str] | None) -> str:
    """A text up to the first of its stop texts."""
    for stop in [until] if isinstance(until, str) else until or ():
        text = text.split(stop)[0] if stop else text
    return text

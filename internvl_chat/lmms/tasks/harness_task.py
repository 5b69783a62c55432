"""A task of this project as a task of lmms-eval: the same questions, and the same scores.

What a task's YAML adds to `class`, in `dataset_kwargs`: `task`, the task's name here, and `data`, where its test set
lies below the folder that INTENTVCNET_DATA names, and `metrics`, the values to show and whether more is better.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from lmms_eval.api.task import ConfigurableTask

from internvl_chat.constants import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from internvl_chat.contracts import UserError
from internvl_chat.lmms.documents import AskedSample
from internvl_chat.tasks.benchmark import Benchmark, Scores, task_named

DATA_VARIABLE = "INTENTVCNET_DATA"


class _SettingsThatShow(dict[str, Any]):
    """How an answer is decoded, and, called with a document, what is shown of it.

    A task that is a class is not told whether it is asked of a simple model or of a chat model. A simple one reads the
    settings at the second place of a request and calls the third, a chat model calls the second and reads the third.
    """

    def __init__(self, settings: Mapping[str, Any], shown: Callable[[Mapping[str, Any]], list[Any]]) -> None:
        super().__init__(settings)
        self._shown = shown

    def __call__(self, doc: Mapping[str, Any]) -> list[Any]:
        return self._shown(doc)


class HarnessTask(ConfigurableTask):
    """A document a question; a metric is one of the values that the task scores.

    This project's model is shown the whole sample. Other models are shown the video or pictures, without the track:
    simple ones as paths, chat models as the messages that their own tasks have.

    Raises:
        UserError: the test set is not there, or is none.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings = config["dataset_kwargs"]
        self._benchmark = read_benchmark(settings["task"], settings["data"])
        self._scored = lru_cache(maxsize=1)(self._score)
        metrics = [
            {"metric": name, "aggregation": partial(self._aggregated, name), "higher_is_better": rises}
            for name, rises in settings["metrics"].items()
        ]
        super().__init__(
            config={
                **{key: value for key, value in config.items() if key != "class"},
                "output_type": "generate_until",
                "test_split": "test",
                "doc_to_visual": self._shown,
                "doc_to_text": lambda doc, _settings=None: doc["question"],
                "doc_to_target": lambda doc: doc["id"],
                "process_results": lambda doc, results: dict.fromkeys(settings["metrics"], (doc["id"], results[0])),
                "metric_list": metrics,
            }
        )

    def download(self, dataset_kwargs: Mapping[str, Any] | None = None) -> None:
        """The questions, which lie on this machine."""
        del dataset_kwargs
        rows = [
            {"id": sample.id, "number": number, "question": _words(sample.turns[-1].text)}
            for number, sample in enumerate(self._benchmark.samples)
        ]
        self.dataset = DatasetDict(test=Dataset.from_list(rows))
        self.dataset_no_image = self.dataset

    def construct_requests(self, doc_id: int, ctx: str, **kwargs: Any) -> Any:
        """The request of a document, which simple models and chat models read alike."""
        request = super().construct_requests(doc_id, ctx, **kwargs)
        context, settings, shown, *place = request.arguments
        for_chat, for_simple = _SettingsThatShow(settings, self._messages), _SettingsThatShow(settings, shown)
        request.arguments = (context, for_chat, for_simple, *place)
        return request

    def _shown(self, doc: Mapping[str, Any]) -> list[AskedSample]:
        return [AskedSample(self._benchmark.samples[doc["number"]])]

    def _messages(self, doc: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One message of a user: what is shown, then the question."""
        sample = self._benchmark.samples[doc["number"]]
        media = [{"type": "image", "url": str(path)} for path in sample.image_paths]
        if sample.video_path:
            media.append({"type": "video", "url": str(sample.video_path)})
        return [{"role": "user", "content": [*media, {"type": "text", "text": doc["question"]}]}]

    def _score(self, answers: tuple[tuple[str, str], ...]) -> Scores:
        return self._benchmark.score({i: [text] for i, text in answers})

    def _aggregated(self, name: str, answers: Sequence[Sequence[str]]) -> float | None:
        value = self._scored(tuple((i, text) for i, text in answers)).values.get(name)
        return None if value is None else float(value)


def read_benchmark(task: str, data: str) -> Benchmark:
    """The questions and scores of a task.

    Raises:
        UserError: no folder of data is named, or the test set is not there.
    """
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        raise UserError(f"{DATA_VARIABLE} is not set: expected the folder with the test sets, this one as {data}")
    return task_named(task).read(Path(root) / data)


def _words(question: str) -> str:
    """A question without its placeholders: other models put what is shown where they are used to."""
    for tag in (VIDEO_PLACEHOLDER, IMAGE_PLACEHOLDER):
        question = question.replace(tag, "")
    return question.strip()

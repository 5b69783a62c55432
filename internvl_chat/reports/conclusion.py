"""What a comparison comes to, in a sentence, and what its metrics mean, in a line each."""

from __future__ import annotations

from collections.abc import Mapping

from internvl_chat.scoring.captions.caption_scores import NO_JAVA_SUFFIX
from internvl_chat.scoring.control_record import ControlRecord
from internvl_chat.scoring.significance import Difference
from internvl_chat.tasks.intentvc.assessment import Assessment

# A difference with a smaller p is said to be one.
SIGNIFICANT = 0.05
MEANING = {
    "CIDEr": "how far the caption shares the word sequences that are typical of this clip's references; 0 to 10",
    "METEOR": "words matched with a reference, also by stem and synonym, less where their order is broken; 0 to 1",
    "BLEU-1": "share of the captions' words that a reference has, less where captions are short; 0 to 1",
    "BLEU-2": "the same for pairs of words in a row",
    "BLEU-3": "the same for three words in a row",
    "BLEU-4": "the same for four words in a row: close wording",
    "ROUGE-L": "longest sequence of words in common with a reference; 0 to 1",
    "SPICE": "objects, attributes and relations in common with the references; 0 to 1",
}


def meanings(names: Mapping[str, object]) -> dict[str, str]:
    """A line for each of these scores that has one, by the score's name."""
    metrics = {name: name.split(" (")[0] for name in names}
    return {name: MEANING[metric] for name, metric in metrics.items() if metric in MEANING}


def concluded(
    runs: Mapping[str, Assessment],
    differences: Mapping[str, Mapping[str, Difference]],
    metric: str,
    num_clips: int,
    control: ControlRecord | None = None,
) -> str:
    """The report's first sentence: the last run against the first, or a single run's score; and the box.

    Args:
        differences: from the first run, by run and score.
        metric: the name of the score that is spoken of.
    """
    (first, *_), last = runs, list(runs)[-1]
    plain, clips = metric.replace(NO_JAVA_SUFFIX, ""), "1 clip" if num_clips == 1 else f"{num_clips} clips"
    score = runs[last].scores[metric]
    if last not in differences:
        interval = runs[last].intervals[metric]
        said = f"{last} has a {plain} of {score:.3f} ({interval.low:.3f} to {interval.high:.3f}) on {clips}."
    else:
        d = differences[last][metric]
        verb = (
            "cannot be told from" if d.p_value >= SIGNIFICANT else "is better than" if d.value > 0 else "is worse than"
        )
        said = (
            f"{last} {verb} {first} in {plain} on {clips}: {score:.3f} against {runs[first].scores[metric]:.3f}, a "
            f"difference of {d.value:+.3f} ({d.interval.low:+.3f} to {d.interval.high:+.3f}, p = {d.p_value:.3f})."
        )
    return " ".join([said, *_of_control(control)])


def _of_control(control: ControlRecord | None) -> list[str]:
    points = {point.probe: point for point in control.points} if control else {}
    said = []
    if "swap" in points:
        said.append(f"Another object's box changes {points['swap'].changed:.0%} of the captions.")
    if "null" in points:
        said.append(f"Without a box {points['null'].changed:.0%} of them change.")
    return said

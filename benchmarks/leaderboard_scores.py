"""The scores of the challenge's real captions, with Java and without, and what consensus gains on them.

    python benchmarks/leaderboard_scores.py --captions train.json [--candidates candidates.json]

`train.json` is the IntentVC challenge's: 980 videos with five captions each. Every caption index is scored against the
four others; those of index 0 must be the recorded ones to 1e-5, and the Java-free scores must be the others to 1e-6.
`candidates.json`, {id: [caption, ...]}, is only timed. The exit code is 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from internvl_chat.choices import CONSENSUS_UTILITIES
from internvl_chat.data.records.annotations import read_captions
from internvl_chat.scoring.captions.caption_scores import NO_JAVA_SUFFIX, caption_tokens, score_captions
from internvl_chat.scoring.consensus import choose_by_consensus

RECORDED = {"BLEU-4": 0.43489, "METEOR": 0.34376, "CIDEr": 2.31529, "ROUGE-L": 0.61377}
RANDOM_PICKS = 5
# CIDEr that consensus must add to a random pick.
LEAST_GAIN = 0.3
# Thrown into captions to see how far the two tokenizers agree on text that is less tidy than the challenge's.
MARKS = [
    ".",
    ",",
    "!",
    "?",
    ";",
    ":",
    " -",
    "--",
    "...",
    "'s",
    "’s",
    '"',
    " (",
    ")",
    "/",
    "%",
    " &",
    " $5",
    " 3.5",
    "…",
]


def leave_one_out(captions: Mapping[str, Sequence[str]], chosen: Mapping[str, int], java: bool) -> dict[str, float]:
    """Scores of one caption of each video against the others of that video."""
    predictions = {i: texts[chosen[i]] for i, texts in captions.items()}
    others = {i: [text for k, text in enumerate(texts) if k != chosen[i]] for i, texts in captions.items()}
    return score_captions(predictions, others, java=java).corpus()


def check_scores(captions: Mapping[str, Sequence[str]]) -> bool:
    names = list(RECORDED)
    sys.stdout.write(f"| caption | {' | '.join(names)} | Java-free differs by |\n|{' --- |' * (len(names) + 2)}\n")
    holds = True
    for index in range(min(map(len, captions.values()))):
        chosen = dict.fromkeys(captions, index)
        with_java, without = leave_one_out(captions, chosen, True), leave_one_out(captions, chosen, False)
        apart = max(abs(with_java[name.removesuffix(NO_JAVA_SUFFIX)] - value) for name, value in without.items())
        values = " | ".join(f"{with_java[name]:.5f}" for name in names)
        sys.stdout.write(f"| {index} | {values} | {apart:.0e} |\n")
        holds &= apart <= 1e-6
        if index == 0:
            holds &= all(abs(with_java[name] - value) <= 1e-5 for name, value in RECORDED.items())
    return holds


def check_tokens(captions: Mapping[str, Sequence[str]]) -> bool:
    """Count the captions that the two tokenizers take apart differently, as they are and with marks thrown in."""

    def count_apart(texts: Sequence[str]) -> int:
        with_java, without = caption_tokens([texts])[0], caption_tokens([texts], java=False)[0]
        return sum(a != b for a, b in zip(with_java, without, strict=True))

    texts = [text for group in captions.values() for text in group]
    draw = random.Random(0)
    untidy = []
    for text in texts:
        words = text.split()
        for _ in range(2):
            words[draw.randrange(len(words))] += draw.choice(MARKS)
        untidy.append(" ".join(words).capitalize())
    apart = count_apart(texts)
    sys.stdout.write(f"\ntokens differ on {apart} of {len(texts)} captions, ")
    sys.stdout.write(f"with two marks thrown into each on {count_apart(untidy)}\n")
    return apart == 0


def show_consensus(captions: Mapping[str, Sequence[str]]) -> bool:
    draw = random.Random(0)
    picks = [{i: draw.randrange(len(texts)) for i, texts in captions.items()} for _ in range(RANDOM_PICKS)]
    rows = [leave_one_out(captions, pick, False) for pick in picks]
    mean = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    names = [f"{name}{NO_JAVA_SUFFIX}" for name in ("CIDEr", "BLEU-4", "ROUGE-L")]
    sys.stdout.write(f"\n| pick | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}\n")
    sys.stdout.write(f"| random, mean of {RANDOM_PICKS} | {' | '.join(f'{mean[name]:.4f}' for name in names)} |\n")
    gains = []
    for utility in CONSENSUS_UTILITIES:
        pick = {i: choice.index for i, choice in choose_by_consensus(captions, utility).items()}
        scores = leave_one_out(captions, pick, False)
        gains.append(scores[names[0]] - mean[names[0]])
        sys.stdout.write(f"| consensus, {utility} | {' | '.join(f'{scores[name]:.4f}' for name in names)} |\n")
    return min(gains) > LEAST_GAIN


def time_consensus(candidates: Mapping[str, Sequence[str]]) -> None:
    for utility in CONSENSUS_UTILITIES:
        started = time.monotonic()
        choose_by_consensus(candidates, utility)
        seconds = time.monotonic() - started
        total = sum(map(len, candidates.values()))
        sys.stdout.write(f"\nconsensus by {utility}: {len(candidates)} videos, {total} candidates, {seconds:.1f} s\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=Path, required=True, help="the challenge's train.json")
    parser.add_argument("--candidates", type=Path, help="candidate captions to time the consensus on")
    args = parser.parse_args()
    captions = read_captions(args.captions)
    holds = [check_scores(captions), check_tokens(captions), show_consensus(captions)]
    if args.candidates:
        time_consensus(read_captions(args.candidates))
    sys.stdout.write("\nholds\n" if all(holds) else "\nDOES NOT HOLD\n")
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())

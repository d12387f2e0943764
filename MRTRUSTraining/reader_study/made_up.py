"""A study that never took place: scores drawn from a seed, to try the analysis on.

Every case has a suspicion that the reference and the readers see with noise of their own. The numbers are
ours, chosen to give readable tables; they are neither the paper's nor anyone's patients'.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass

from .sheet import KEYS, RATINGS, REFERENCES
from .study import CONFIDENCES, MADE_UP_MARK, SCORES, SIDES

CASES = 40
NOTICE = f"{MADE_UP_MARK}: drawn from a seed by `mrtrus-train made-up-study`; no patients, no readers"
_GLEASON = ("benign", "3+3", "3+4", "4+3", "4+4", "4+5")


@dataclass(frozen=True)
class _Reader:
    """Noise of the scores, and the mean confidence, by condition; how often the side is named rightly."""

    name: str
    noise: dict[str, float]
    confidence: dict[str, float]
    side: dict[str, float]


_READERS = (
    _Reader(
        "junior",
        {"original": 1.7, "registered": 1.5},
        {"original": 3.8, "registered": 3.5},
        {"trus": 0.35, "original": 0.45, "registered": 0.5},
    ),
    _Reader(
        "senior",
        {"original": 1.0, "registered": 0.95},
        {"original": 4.2, "registered": 4.9},
        {"trus": 0.45, "original": 0.6, "registered": 0.7},
    ),
)


def made_up_csv(seed: int) -> str:
    """The CSV of a made-up study; the same seed gives the same text."""
    rng = random.Random(seed)
    stream = io.StringIO()
    stream.write(f"# {NOTICE} (seed {seed}).\n")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow((*KEYS, *RATINGS, *REFERENCES))
    for number in range(CASES):
        writer.writerows(_case_rows(f"made-up-{number + 1:02}", rng))
    return stream.getvalue()


def _case_rows(case: str, rng: random.Random) -> Iterator[tuple[str | int, ...]]:
    suspicion = rng.choice((2.0, 2.6, 3.2, 3.8, 4.4, 5.0))
    pirads = _level(rng.gauss(suspicion, 0.35), (2, 3, 4, 5))
    gleason = _GLEASON[_level(rng.gauss(1.3 * (suspicion - 2.2), 0.9), range(len(_GLEASON)))]
    side = "none" if gleason == "benign" else rng.choice(SIDES)
    for reader in _READERS:
        for condition, right in reader.side.items():
            score, confidence = _scores(reader, condition, suspicion, rng)
            named = side if rng.random() < right else rng.choice((*SIDES, "none"))
            yield case, reader.name, condition, score, confidence, named, pirads, side, gleason


def _scores(
    reader: _Reader, condition: str, suspicion: float, rng: random.Random
) -> tuple[int | str, int | str]:
    """T2 score and confidence; none on TRUS, where only the side is read."""
    if condition not in reader.noise:
        return "", ""
    score = _level(rng.gauss(suspicion - 0.2, reader.noise[condition]), SCORES)
    return score, _level(rng.gauss(reader.confidence[condition], 1.1), CONFIDENCES)


def _level(value: float, levels: range | tuple[int, ...]) -> int:
    """The nearest of the levels, which are whole numbers without gaps."""
    return min(max(round(value), levels[0]), levels[-1])

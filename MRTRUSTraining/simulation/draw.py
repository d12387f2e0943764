"""A seeded source of the few kinds of random numbers that drawing a case needs."""

from __future__ import annotations

import numpy as np

from .parameters import Vector

_SEED_LIMIT = 2**31 - 1000


class Draw:
    """A seeded source of the few kinds of random numbers that are needed, as plain Python numbers."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def uniform(self, low: float, high: float) -> float:
        return float(self._generator.uniform(low, high))

    def between(self, ends: tuple[float, float]) -> float:
        return self.uniform(*ends)

    def normal(self, mean: float, sd: float, limits: float = 2.5) -> float:
        """A normal number, kept within `limits` standard deviations."""
        return mean + sd * float(np.clip(self._generator.normal(), -limits, limits))

    def chance(self, share: float) -> bool:
        return bool(self._generator.random() < share)

    def choice(self, items: tuple, shares: tuple[float, ...] | None = None) -> object:
        return items[int(self._generator.choice(len(items), p=shares))]

    def count(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return int(self._generator.integers(low, high + 1))

    def seed(self) -> int:
        return int(self._generator.integers(0, _SEED_LIMIT))

    def vector(self, sd: float, limits: float = 2.5) -> Vector:
        return self.normal(0, sd, limits), self.normal(0, sd, limits), self.normal(0, sd, limits)

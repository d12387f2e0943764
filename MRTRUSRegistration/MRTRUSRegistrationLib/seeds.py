"""Whether a seed can be used."""

from __future__ import annotations

from .errors import InputError

# ANTs takes a 32-bit seed, and one more than the user's (0 means the clock to it).
MOST_SEED = 2**31 - 2


def check_seed(seed: int) -> None:
    """`InputError` for a seed that some random generator of the project does not take."""
    if not 0 <= seed <= MOST_SEED:
        raise InputError(f"The seed {seed} is not between 0 and {MOST_SEED}.")

"""What the published summary figures of the reader study (Yu et al. 2025) allow to be recomputed."""

from fractions import Fraction
from itertools import product

import pytest

from MRTRUSTraining.reader_study.kappa import cohen_kappa
from MRTRUSTraining.reader_study.rank_tests import exact_mcnemar_p, proportion

READ = 31
SPLITS = ((16, 15), (15, 16))  # one of 16 + 16 cases was left out; which is not said


def prints_as(value: Fraction, published: float, digits: int) -> bool:
    """Whether the value could be printed so, whichever way a half is rounded."""
    return abs(value - Fraction(str(published))) <= Fraction(1, 2 * 10**digits)


def cases_that_give(before: float, after: float) -> list[tuple[int, int, int]]:
    """Numbers of cases, and of concordant ones before and after, that print as the two percentages."""
    found = []
    for cases in range(1, READ + 1):
        for first, second in product(range(cases + 1), repeat=2):
            shares = (Fraction(100 * first, cases), Fraction(100 * second, cases))
            if prints_as(shares[0], before, 1) and prints_as(shares[1], after, 1):
                found.append((cases, first, second))
    return found


def test_concordance_is_that_of_13_and_11_cases() -> None:
    left, bilateral = cases_that_give(61.5, 69.2), cases_that_give(72.7, 81.8)
    possible = [(a, b) for a, b in product(left, bilateral) if a[0] + b[0] <= READ]
    assert possible == [((13, 8, 9), (11, 8, 9))]
    for (cases, before, after), shown in zip(possible[0], (("61.5", "69.2"), ("72.7", "81.8")), strict=True):
        assert f"{100 * proportion(before, cases).value:.1f}" == shown[0]
        assert f"{100 * proportion(after, cases).value:.1f}" == shown[1]


def test_concordance_hardly_bears_its_conclusion() -> None:
    before, after = proportion(8, 13), proportion(9, 13)
    assert before.low < after.value < before.high
    # One patient net, whatever the pairing.
    assert [exact_mcnemar_p(lost + 1, lost) for lost in range(5)] == pytest.approx([1.0] * 5)


@pytest.mark.parametrize("published", [0.590, 0.706, 0.775, 0.781])
def test_areas_fit_15_and_16_cases(published: float) -> None:
    halves = 2 * 15 * 16  # an area is a number of half wins over the pairs of cases
    assert any(prints_as(Fraction(wins, halves), published, 3) for wins in range(halves + 1))


def test_one_area_does_not_fit_16_and_16_cases() -> None:
    halves = 2 * 16 * 16
    assert not any(prints_as(Fraction(wins, halves), 0.706, 3) for wins in range(halves + 1))


@pytest.mark.parametrize(
    ("published", "total"), [(3.613, [112]), (3.032, [94]), (3.548, [110]), (3.226, [100]), (3.266, [])]
)
def test_confidence_as_means_of_31_ratings(published: float, total: list[int]) -> None:
    """3.266 is the published one that is none; 3.226 would be."""
    totals = range(READ, 7 * READ + 1)
    assert [sum_ for sum_ in totals if prints_as(Fraction(sum_, READ), published, 3)] == total


def kappa_of(both: int, first_only: int, second_only: int, neither: int) -> float:
    first = [1] * both + [1] * first_only + [0] * second_only + [0] * neither
    second = [1] * both + [0] * first_only + [1] * second_only + [0] * neither
    return cohen_kappa(first, second, categories=(0, 1)).value


@pytest.mark.parametrize("published", [0.330, 0.784])
@pytest.mark.parametrize("split", SPLITS)
def test_kappas_are_not_against_the_reference(published: float, split: tuple[int, int]) -> None:
    positive, negative = split
    tables = product(range(positive + 1), range(negative + 1))
    values = [kappa_of(hits, negative - right, positive - hits, right) for hits, right in tables]
    assert min(abs(value - published) for value in values) > 0.001


@pytest.mark.parametrize(("published", "counts"), [(0.330, (19, 5, 3, 4)), (0.784, (9, 2, 1, 19))])
def test_kappas_fit_two_readings_of_31_cases(published: float, counts: tuple[int, int, int, int]) -> None:
    assert sum(counts) == READ
    assert kappa_of(*counts) == pytest.approx(published, abs=0.0005)

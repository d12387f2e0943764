"""Other groups' measures on small arrays worked out by hand, their defects included."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from MRTRUSRegistrationLib.compat_measures import (
    MuregCase,
    MuregCohort,
    collapsed_label_map,
    dsc_srm_compat,
    mureg_code_case,
    mureg_code_cohort,
    mureg_code_hd95_vox,
    mureg_score,
    mureg_site_case,
    mureg_site_cohort,
    mureg_site_normaliser,
    robust_mean,
    tre_srm_compat,
)

SHAPE = (20, 20, 20)
VOXEL_MM3 = 0.8**3


def block(start: tuple[int, int, int], size: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE)
    mask[tuple(slice(begin, begin + width) for begin, width in zip(start, size, strict=True))] = 1
    return mask


def labels(*pairs: tuple[int, np.ndarray]) -> np.ndarray:
    found = np.zeros(SHAPE, int)
    for value, mask in pairs:
        found[mask > 0] = value
    return found


def case(dsc: float, tre_vox: float, errors: tuple[float, ...] = (), hd95_vox: float = 1.0) -> MuregCase:
    return MuregCase(dsc, hd95_vox, errors, tre_vox, tre_vox)


# Salient region matching


def test_landmarks_overwrite_the_gland() -> None:
    gland, first, second = (
        block((2, 2, 2), (4, 4, 4)),
        block((2, 2, 2), (2, 2, 2)),
        block((3, 2, 2), (2, 2, 2)),
    )
    found = collapsed_label_map([gland, first, second])
    assert [np.count_nonzero(found == value) for value in range(4)] == [8000 - 64, 64 - 12, 4, 8]


def test_srm_tre_is_a_mean_in_voxels_that_counts_the_gland() -> None:
    """The gland moves by 3 voxels, a landmark by (2, 4, 4) = 6: mean 4.5, RMS would be 4.74."""
    fixed = labels((1, block((1, 1, 1), (4, 4, 4))), (2, block((8, 8, 8), (5, 5, 2))))
    warped = labels((1, block((4, 1, 1), (4, 4, 4))), (2, block((10, 12, 12), (5, 5, 2))))
    assert tre_srm_compat(fixed, warped, voxel_volume_mm3=VOXEL_MM3) == pytest.approx(4.5)


def test_srm_tre_drops_small_landmarks_in_either_map() -> None:
    """50 voxels count, 49 do not: the landmark that is 10 voxels off vanishes with one voxel."""
    gland = block((1, 1, 1), (4, 4, 4))
    large, small = block((8, 0, 8), (5, 5, 2)), block((8, 10, 8), (5, 5, 2))
    small[8, 10, 8] = 0
    full = block((8, 10, 8), (5, 5, 2))
    assert (
        tre_srm_compat(
            labels((1, gland), (3, large)), labels((1, gland), (3, full)), voxel_volume_mm3=VOXEL_MM3
        )
        == 5
    )
    for a, b in ((large, small), (small, large)):
        found = tre_srm_compat(
            labels((1, gland), (3, a)), labels((1, gland), (3, b)), voxel_volume_mm3=VOXEL_MM3
        )
        assert found == 0


def test_srm_threshold_is_a_volume() -> None:
    """On voxels of 1.5 mm, 25.6 mm³ are 8 voxels (27 mm³); 7 are too few."""
    fixed, warped = labels((1, block((1, 1, 1), (2, 2, 2)))), labels((1, block((1, 1, 4), (2, 2, 2))))
    assert tre_srm_compat(fixed, warped, voxel_volume_mm3=1.5**3) == 3
    warped[1, 1, 4] = 0
    assert np.isnan(tre_srm_compat(fixed, warped, voxel_volume_mm3=1.5**3))


def test_srm_knows_six_labels() -> None:
    fixed = labels((6, block((1, 1, 1), (4, 4, 4))), (7, block((8, 8, 8), (4, 4, 4))))
    warped = labels((6, block((1, 1, 3), (4, 4, 4))), (7, block((12, 12, 12), (4, 4, 4))))
    assert tre_srm_compat(fixed, warped, voxel_volume_mm3=VOXEL_MM3) == 2


def test_srm_dsc_leaves_the_landmarks_out_of_the_gland() -> None:
    """Equal glands whose landmarks lie in different halves: 1 for the whole gland, 0.5 here."""
    gland = block((2, 2, 2), (4, 4, 4))
    fixed = collapsed_label_map([gland, block((2, 2, 2), (2, 4, 4))])
    warped = collapsed_label_map([gland, block((4, 2, 2), (1, 4, 4))])
    assert dsc_srm_compat(fixed, warped) == pytest.approx(2 * 16 / (32 + 48))


# µ-RegPro, the scorer


def test_mureg_code_dsc_is_soft() -> None:
    fixed, warped = block((0, 0, 0), (2, 2, 2))[None], 0.25 * block((0, 0, 0), (2, 2, 4))[None]
    assert mureg_code_case(fixed, warped).dsc == pytest.approx(2 * 8 * 0.25 / (8 + 4))


def test_mureg_code_cuts_centroids_and_averages_the_axes() -> None:
    """Centroids (1.5, 1, 1) and (4.9…, 3, 1) are cut to (1, 1, 1) and (4, 3, 1): (3 + 2 + 0) / 3."""
    fixed = block((1, 1, 1), (2, 1, 1))
    warped = block((4, 3, 1), (2, 1, 1))
    assert mureg_code_case(fixed[None], warped[None]).label_errors_vox == (pytest.approx(5 / 3),)
    half = block((2, 1, 1), (1, 1, 1))  # truly half a voxel from `fixed`, a whole one after cutting
    assert mureg_code_case(fixed[None], half[None]).label_errors_vox == (pytest.approx(1 / 3),)
    quarter = block((1, 1, 1), (1, 1, 1))  # half a voxel off on the other side: no error at all
    assert mureg_code_case(fixed[None], quarter[None]).label_errors_vox == (0.0,)


def test_mureg_code_counts_the_gland_and_empty_labels() -> None:
    """Empty in both: 0. Empty in one: as far as the origin is, here (6 + 3 + 9) / 3. The gland counts."""
    empty, seen = np.zeros(SHAPE), block((6, 3, 9), (1, 1, 1))
    gland = block((1, 1, 1), (3, 3, 3)), block((1, 4, 1), (3, 3, 3))
    found = mureg_code_case(np.stack([gland[0], empty, seen]), np.stack([gland[1], empty, empty]))
    assert found.label_errors_vox == (1.0, 0.0, 6.0)
    assert found.tre_vox == pytest.approx(np.sqrt(37 / 3))
    assert found.rts_vox == pytest.approx(np.sqrt(1 / 2))  # the best round(0.68 · 3) = 2


def test_mureg_code_hd95_measures_between_whole_masks() -> None:
    """A cube of 10 voxels in one of 14: surfaces lie 2 apart, but most voxels of the cubes overlap."""
    inner, outer = block((4, 4, 4), (10, 10, 10)), block((2, 2, 2), (14, 14, 14))
    outside = [
        np.linalg.norm(np.maximum(np.maximum(4 - point, point - 13), 0)) for point in np.argwhere(outer > 0)
    ]
    expected = np.percentile(np.concatenate([outside, np.zeros(1000)]), 95)
    assert mureg_code_hd95_vox(inner, outer) == pytest.approx(expected)
    surfaces = mureg_site_case(inner[None], outer[None]).hd95_vox
    assert expected < surfaces


def test_erosion_of_the_scorers_array_leaves_nothing() -> None:
    """Why `mureg_code_hd95_vox` uses whole masks: two axes of length one are eroded away."""
    mask = block((4, 4, 4), (10, 10, 10)) > 0
    assert np.count_nonzero(binary_erosion(mask)) == 8**3
    assert np.count_nonzero(binary_erosion(mask[None, ..., None])) == 0


def test_mureg_code_hd95_takes_any_soft_value_and_averages_all_labels() -> None:
    plate = block((5, 5, 5), (4, 4, 1))
    faint = plate + 0.01 * block((5, 5, 9), (4, 4, 1))  # 16 of 48 voxels are 4 away
    assert mureg_code_hd95_vox(plate, faint) == pytest.approx(4.0)
    empty = np.zeros(SHAPE)
    assert mureg_code_hd95_vox(plate, empty) == mureg_code_hd95_vox(empty, empty) == 0.0
    found = mureg_code_case(np.stack([plate, plate, empty, plate]), np.stack([plate, faint, empty, empty]))
    assert found.hd95_vox == pytest.approx(1.0)


def test_mureg_code_cohort_leaves_out_a_label_that_is_zero_in_every_case() -> None:
    cases = [case(0.8, 99.0, (3.0, 0.0, 4.0)), case(0.6, 99.0, (0.0, 0.0, 2.0))]
    found = mureg_code_cohort(cases)
    first, second = np.sqrt(25 / 2), np.sqrt(4 / 2)
    assert found.tre_vox == pytest.approx((first + second) / 2)
    assert found.rtre_vox == pytest.approx(second)
    assert found.rts_vox == pytest.approx((3.0 + 0.0) / 2)  # one of two labels: round(1.36)
    assert (found.dsc, found.rdsc) == (pytest.approx(0.7), 0.8)


def test_a_label_that_a_case_lacks_is_empty_on_both_sides_to_the_scorer() -> None:
    """Of eight labels the other case has seven: the same figures as with the eighth, empty, in it."""
    gland, lesion, empty = block((1, 1, 1), (4, 4, 4)), block((2, 2, 2), (2, 2, 2)), np.zeros(SHAPE)
    moved = block((3, 2, 2), (2, 2, 2))
    whole = mureg_code_case(np.stack([gland] + [lesion] * 7), np.stack([gland] + [moved] * 7))
    short, long = (
        mureg_code_case(np.stack([gland] + [lesion] * 6 + end), np.stack([gland] + [moved] * 6 + end))
        for end in ([], [empty])
    )
    assert (len(short.label_errors_vox), len(long.label_errors_vox)) == (7, 8)
    found, expected = mureg_code_cohort([whole, short]), mureg_code_cohort([whole, long])
    for name, value in vars(expected).items():
        assert getattr(found, name) == pytest.approx(value), name
    assert short.hd95_vox > long.hd95_vox > 0


# µ-RegPro, the web page


def test_mureg_site_errors_are_l1_of_landmarks_alone() -> None:
    """Landmarks off by (1, 2, 0), (0, 0, 5), (2, 2, 2) and (7, 0, 0); the gland's 3 voxels do not count."""
    starts = [(4, 4, 4), (1, 1, 1), (8, 8, 8), (2, 9, 4)]
    moves = [(1, 2, 0), (0, 0, 5), (2, 2, 2), (7, 0, 0)]
    fixed = [block((1, 1, 1), (4, 4, 4))] + [block(start, (2, 2, 2)) for start in starts]
    warped = [block((1, 1, 4), (4, 4, 4))] + [
        block(tuple(np.add(start, move)), (2, 2, 2)) for start, move in zip(starts, moves, strict=True)
    ]
    found = mureg_site_case(np.stack(fixed), np.stack(warped))
    assert found.label_errors_vox == (3.0, 5.0, 6.0, 7.0)
    assert found.tre_vox == pytest.approx(np.sqrt((9 + 25 + 36 + 49) / 4))
    assert found.rts_vox == pytest.approx(np.sqrt((9 + 25 + 36) / 3))
    assert found.dsc == pytest.approx(0.25)
    assert found.hd95_vox == pytest.approx(3.0)


def test_mureg_site_thresholds_where_the_scorer_is_soft() -> None:
    fixed = block((2, 2, 2), (4, 4, 4))[None]
    warped = 0.6 * fixed + 0.4 * block((2, 2, 6), (4, 4, 4))[None]
    assert mureg_site_case(fixed, warped).dsc == 1.0
    assert mureg_code_case(fixed, warped).dsc == pytest.approx(0.6)


def test_mureg_site_empty_and_lost_labels() -> None:
    gland, empty, seen = block((1, 1, 1), (4, 4, 4)), np.zeros(SHAPE), block((4, 4, 4), (1, 1, 1))
    faint = 0.2 * block((4, 6, 4), (1, 1, 1))
    absent = mureg_site_case(np.stack([gland, empty]), np.stack([gland, seen]))
    assert absent.label_errors_vox == ()
    assert np.isnan([absent.tre_vox, absent.rts_vox]).all()
    assert mureg_site_case(np.stack([gland, seen]), np.stack([gland, faint])).tre_vox == pytest.approx(2.0)
    lost = mureg_site_case(np.stack([gland, seen]), np.stack([empty, empty]))
    assert (lost.dsc, lost.hd95_vox, lost.tre_vox, lost.rts_vox) == (0.0, np.inf, np.inf, np.inf)


# Cohorts and the score


def test_robust_mean_takes_the_best_68_percent() -> None:
    values = [float(value) for value in (9, 1, 8, 2, 7, 3, 6, 4, 5, 10)]
    assert robust_mean(values, highest=False) == pytest.approx(4.0)  # 1 … 7
    assert robust_mean(values, highest=True) == pytest.approx(7.0)  # 4 … 10
    assert robust_mean([*values, float("nan")], highest=False) == pytest.approx(4.0)
    assert np.isnan(robust_mean([], highest=True))


def test_site_cohort_means_skip_cases_without_landmarks() -> None:
    found = mureg_site_cohort([case(0.5, 2.0), case(0.7, float("nan")), case(0.9, 6.0)])
    assert found.dsc == pytest.approx(0.7)
    assert found.rdsc == pytest.approx(0.8)  # round(2.04) = 2 of 3
    assert found.tre_vox == pytest.approx(4.0)
    assert found.rtre_vox == pytest.approx(2.0)  # round(1.36) = 1 of 2


def test_score_of_known_figures() -> None:
    normaliser = MuregCohort(0.0, 0.0, 10.0, 8.0, 5.0, 20.0)
    found = MuregCohort(0.9, 0.95, 2.0, 1.0, 1.0, 5.0)
    expected = 0.2 * 0.9 + 0.1 * 0.95 + 0.3 * 0.8 + 0.1 * 0.875 + 0.1 * 0.8 + 0.2 * 0.75
    assert mureg_score(found, normaliser=normaliser) == pytest.approx(expected)
    perfect = MuregCohort(1.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    assert mureg_score(perfect, normaliser=normaliser) == pytest.approx(1.0)
    worse = MuregCohort(0.0, 0.0, np.inf, 9.0, 6.0, 21.0)
    assert mureg_score(worse, normaliser=normaliser) == 0.0


def test_site_normaliser_is_the_largest_single_error() -> None:
    cases = [case(0.1, 4.0, (3.0, 5.0), 8.0), case(0.3, 9.0, (9.0, np.inf), 12.0)]
    found = mureg_site_normaliser(cases)
    assert (found.tre_vox, found.rtre_vox, found.rts_vox, found.hd95_vox) == (9.0, 9.0, 9.0, 10.0)

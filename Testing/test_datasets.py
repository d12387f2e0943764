"""Loading of data sets in the layouts mrus and muregpro."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from dataset_case import LANDMARKS_MM, write_dataset
from shapes import array, overlap, turned

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import (
    Grid,
    mask_centroid_mm,
    orientation_code,
    orientation_direction,
    resample_mask,
)
from MRTRUSRegistrationLib.rigid import gland_initial
from MRTRUSTraining.data.cases import centred_initial, find_cases, load_case, read_case_names
from MRTRUSTraining.data.unpaired import unpaired_in_all, unpaired_sentence
from MRTRUSTraining.evaluation.rigid_choice import landmark_rms_mm

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "mrus"
real_data = pytest.mark.skipif(not REAL.is_dir(), reason="the mrus pairs are not beside the repository")


# --- finding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["mrus", "muregpro"])
def test_cases_are_found_sorted_with_their_patients(tmp_path: Path, layout: str) -> None:
    write_dataset(tmp_path, layout, ("c", "a", "b"))
    (tmp_path / "splits.json").write_text(json.dumps({"val": ["a"], "patients": [["a", "b"], ["c"]]}))
    cases = find_cases(tmp_path, layout)  # type: ignore[arg-type]
    assert [(case.name, case.patient) for case in cases] == [("a", "a"), ("b", "a"), ("c", "c")]
    moving = {"mrus": "moving", "muregpro": "mr"}[layout]
    assert cases[0].mr_path == tmp_path / f"{moving}_images" / "a.nii.gz"
    named = find_cases(tmp_path, layout, ["c", "a"])  # type: ignore[arg-type]
    assert [case.name for case in named] == ["c", "a"]


@pytest.mark.parametrize("folder", ["moving_images", "fixed_images", "moving_labels", "fixed_labels"])
def test_a_missing_file_is_named(tmp_path: Path, folder: str) -> None:
    write_dataset(tmp_path, "mrus", ("a", "b"))
    path = tmp_path / folder / "b.nii.gz"
    path.unlink()
    with pytest.raises(InputError) as error:
        find_cases(tmp_path, "mrus", ["a", "b"])
    assert str(path) in str(error.value)


def test_a_folder_of_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_cases(tmp_path / "nowhere", "mrus")
    write_dataset(tmp_path, "mrus", ("a",))
    with pytest.raises(InputError, match="mr_images"):
        find_cases(tmp_path, "muregpro")
    for path in tmp_path.rglob("*.nii.gz"):
        path.unlink()
    with pytest.raises(InputError, match="No cases"):
        find_cases(tmp_path, "mrus")


def test_case_lists(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text(json.dumps(["a", "b"]))
    assert read_case_names(path) == ["a", "b"]
    path.write_text(json.dumps({"train": ["a"], "val": ["b"], "test": []}))
    assert read_case_names(path) == ["b"]
    assert read_case_names(path, "train") == ["a"]
    for part in ("test", "other"):
        with pytest.raises(InputError, match=part):
            read_case_names(path, part)


@pytest.mark.parametrize("content", ["{", "[]", "[1]", '{"x": ["a"]}', '"a"'])
def test_a_broken_case_list_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "names.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"names\.json"):
        read_case_names(path)
    with pytest.raises(InputError, match="does not exist"):
        read_case_names(tmp_path / "absent.json")


def test_broken_patient_groups_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, "mrus", ("a",))
    (tmp_path / "splits.json").write_text("{")
    with pytest.raises(InputError, match=r"splits\.json"):
        find_cases(tmp_path, "mrus")


# --- loading -------------------------------------------------------------------------------------------


def test_a_public_case_gets_the_public_axes_and_a_centred_start(tmp_path: Path) -> None:
    write_dataset(tmp_path, "mrus", ("a",))
    case = load_case(find_cases(tmp_path, "mrus")[0])
    assert [orientation_code(image.GetDirection()) for image in (case.mr, case.trus)] == ["PRS", "PRS"]
    assert case.mr.GetPixelID() == sitk.sitkFloat32
    assert {Grid.of(label) for label in case.mr_labels} == {Grid.of(case.mr)}
    assert {Grid.of(label) for label in case.trus_labels} == {Grid.of(case.trus)}
    assert case.label_names == ("gland", "landmark 1", "landmark 2")
    assert set(np.unique(array(case.mr_gland))) == {0, 1}
    middle = Grid.of(case.trus).centre_mm
    moved = case.initial.TransformPoint(middle.tolist())
    np.testing.assert_allclose(moved, Grid.of(case.mr).centre_mm, atol=1e-9)


def test_a_case_with_a_header_keeps_it(tmp_path: Path) -> None:
    write_dataset(tmp_path, "muregpro", ("a",))
    case = load_case(find_cases(tmp_path, "muregpro")[0])
    assert orientation_code(case.mr.GetDirection()) == "LPS"
    np.testing.assert_allclose(case.mr.GetDirection(), turned(0.1, 0.05, -0.1), atol=1e-5)
    for label, expected in zip(case.mr_labels[1:], LANDMARKS_MM, strict=True):
        np.testing.assert_allclose(mask_centroid_mm(label), expected, atol=0.6)


def test_centred_start_maps_middle_to_middle_and_turns_nothing() -> None:
    """However the voxels are ordered: headers say how they lie in the patient."""
    mr = Grid((10, 12, 14), (1.0, 1.5, 2.0), (5.0, 6.0, 7.0), turned(0.3, 0.1, -0.5))
    trus = Grid((9, 8, 7), (0.5, 0.6, 0.7), (-4.0, -3.0, 2.0), orientation_direction("LAS"))
    start = centred_initial(mr, trus)
    for offset in np.vstack([np.zeros(3), 3 * np.eye(3)]):
        point = trus.centre_mm + offset
        np.testing.assert_allclose(start.TransformPoint(point.tolist()), mr.centre_mm + offset, atol=1e-9)


@pytest.mark.parametrize("layout", ["mrus", "muregpro"])
def test_the_truth_is_loaded_where_a_case_has_one(tmp_path: Path, layout: str) -> None:
    write_dataset(tmp_path, layout, ("a", "b"))
    (tmp_path / "transforms").mkdir()
    path = tmp_path / "transforms" / "a.h5"
    field = sitk.Image((6, 6, 6), sitk.sitkVectorFloat64)
    parts = [sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), sitk.DisplacementFieldTransform(field)]
    sitk.WriteTransform(sitk.CompositeTransform(parts), str(path))
    with_truth, without = find_cases(tmp_path, layout)  # type: ignore[arg-type]
    assert (with_truth.truth_path, without.truth_path) == (path, None)
    loaded = load_case(with_truth)
    assert loaded.truth is not None
    assert loaded.truth.TransformPoint((4.0, -1.0, 2.0)) == pytest.approx((5.0, 1.0, 5.0))
    assert load_case(without).truth is None


def test_an_unreadable_truth_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, "muregpro", ("a",))
    (tmp_path / "transforms").mkdir()
    (tmp_path / "transforms" / "a.h5").write_bytes(b"not a transform")
    with pytest.raises(InputError, match=r"transforms.a\.h5 cannot be read"):
        load_case(find_cases(tmp_path, "muregpro")[0])


def test_an_empty_landmark_leaves_its_pair_out(tmp_path: Path) -> None:
    write_dataset(tmp_path, "mrus", ("a",), empty_mr=(1,))
    case = load_case(find_cases(tmp_path, "mrus")[0])
    assert case.label_names == ("gland", "landmark 2")
    assert len(case.mr_labels) == len(case.trus_labels) == 2
    assert case.unpaired == ("Landmark 1 of case a is in TRUS only and is left out.",)


def test_a_landmark_that_both_sides_lack_is_none(tmp_path: Path) -> None:
    write_dataset(tmp_path, "mrus", ("a",), empty_mr=(1,))
    path = tmp_path / "fixed_labels" / "a.nii.gz"
    labels = sitk.ReadImage(str(path))
    channels = array(labels)
    channels[1] = 0
    emptied = sitk.GetImageFromArray(channels, isVector=False)
    emptied.CopyInformation(labels)
    sitk.WriteImage(emptied, str(path))
    assert load_case(find_cases(tmp_path, "mrus")[0]).unpaired == ()


def test_landmarks_left_out_of_a_data_set_are_said_in_one_sentence() -> None:
    said = [unpaired_sentence("a", channel, in_mr=True) for channel in (1, 2)]
    assert unpaired_in_all([(), ()]) is None
    assert unpaired_in_all([said[:1], ()]) == "Landmark 1 of case a is in MR only and is left out."
    several = unpaired_in_all([said, (), said[:1]])
    assert several is not None
    assert several.startswith("3 landmarks of 2 cases are in one modality only")
    assert "2 landmarks of 1 case are" in (unpaired_in_all([said]) or "")


def test_a_three_dimensional_label_is_the_gland_alone(tmp_path: Path) -> None:
    write_dataset(tmp_path, "mrus", ("a",), landmarks=0)
    case = load_case(find_cases(tmp_path, "mrus")[0])
    assert case.label_names == ("gland",)
    assert array(case.mr_gland).any()


def test_an_empty_gland_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, "mrus", ("a",), empty_mr=(0,))
    with pytest.raises(InputError, match="Case a has an empty gland"):
        load_case(find_cases(tmp_path, "mrus")[0])


def test_different_numbers_of_channels_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, "mrus", ("a",))
    path = tmp_path / "moving_labels" / "a.nii.gz"
    labels = sitk.ReadImage(str(path))
    sitk.WriteImage(labels[:, :, :, :2], str(path))
    with pytest.raises(InputError, match="2 label channels in MR but 3 in TRUS"):
        load_case(find_cases(tmp_path, "mrus")[0])


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, "mrus", ("a",))
    path = tmp_path / "fixed_labels" / "a.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(path))[1:, :, :, :], str(path))
    with pytest.raises(InputError, match="another size"):
        load_case(find_cases(tmp_path, "mrus")[0])


def test_unreadable_labels_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, "mrus", ("a",))
    path = tmp_path / "fixed_labels" / "a.nii.gz"
    path.write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"fixed_labels.a\.nii\.gz"):
        load_case(find_cases(tmp_path, "mrus")[0])


# --- the real pairs ------------------------------------------------------------------------------------


@real_data
@pytest.mark.slow
def test_the_real_pairs_give_the_published_starting_figures() -> None:
    """Reference masks, 73 pairs: Initial .601 ± .150, 12.49 ± 4.66 mm; centroid .842 ± .048, 6.35 ± 2.45 mm.

    DSC, and the RMS distance of a case's landmarks (the gland left out) by their centroids.
    """
    rows = []
    for case in find_cases(REAL, "mrus"):
        loaded = load_case(case)
        row = []
        for start in (loaded.initial, gland_initial(loaded.mr_gland, loaded.trus_gland)):
            moved = resample_mask(loaded.mr_gland, Grid.of(loaded.trus), start)
            row += [overlap(moved, loaded.trus_gland), landmark_rms_mm(loaded, start)]
        rows.append(row)
    assert len(rows) == 73
    means, spreads = np.nanmean(rows, axis=0), np.nanstd(rows, axis=0, ddof=1)
    assert np.all(np.abs(means - [0.601, 12.49, 0.842, 6.35]) < [0.002, 0.03, 0.002, 0.03]), means
    assert np.all(np.abs(spreads - [0.150, 4.66, 0.048, 2.45]) < [0.002, 0.05, 0.002, 0.05]), spreads

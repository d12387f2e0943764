"""Data sets listed in a table, the nested µ-RegPro download, and splits by patient."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from dataset_case import LANDMARKS_MM, TRUS_SHIFT_MM, write_dataset
from shapes import array

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import mask_centroid_mm, orientation_code
from MRTRUSTraining.data.cases import (
    LoadedCase,
    detect_layout,
    find_cases,
    find_part,
    find_parts,
    load_case,
)

COLUMNS = ("case", "patient", "mr", "trus", "mr_labels", "trus_labels")


def row(name: str, *, patient: str = "", **more: str) -> dict[str, str]:
    paths = {
        "mr": f"mr_images/{name}.nii.gz",
        "trus": f"us_images/{name}.nii.gz",
        "mr_labels": f"mr_labels/{name}.nii.gz",
        "trus_labels": f"us_labels/{name}.nii.gz",
    }
    return {"case": name, "patient": patient or name, **paths, **more}


def write_manifest(folder: Path, rows: list[dict[str, str]], *, delimiter: str = ",") -> Path:
    """manifest.csv beside a data set, with the columns that its rows use."""
    header = list(COLUMNS) + sorted({name for entry in rows for name in entry} - set(COLUMNS))
    lines = [header] + [[entry.get(name, "") for name in header] for entry in rows]
    path = folder / "manifest.csv"
    path.write_text("\n".join(delimiter.join(line) for line in lines), encoding="utf-8-sig")
    return path


def refused(folder: Path, rows: list[dict[str, str]], *fragments: str) -> None:
    with pytest.raises(InputError) as error:
        find_cases(write_manifest(folder, rows), "manifest")
    for fragment in ("manifest.csv", *fragments):
        assert fragment in str(error.value)


# --- reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_manifest_gives_the_same_cases_as_the_folders(tmp_path: Path, delimiter: str) -> None:
    write_dataset(tmp_path, "muregpro", ("a", "b"))
    rows = [row("b", patient="P2", note="own column"), row("a", patient="P1")]
    path = write_manifest(tmp_path, rows, delimiter=delimiter)
    for source in (path, tmp_path):
        cases = find_cases(source, "manifest")
        assert [(case.name, case.patient) for case in cases] == [("a", "P1"), ("b", "P2")]
    listed, plain = load_case(cases[0]), load_case(find_cases(tmp_path, "muregpro")[0])
    assert listed.label_names == plain.label_names
    for name in ("mr", "trus"):
        ours, theirs = (getattr(case, name) for case in (listed, plain))
        np.testing.assert_array_equal(array(ours), array(theirs))
        np.testing.assert_allclose(ours.GetDirection(), theirs.GetDirection())
    assert [case.name for case in find_cases(path, "manifest", ["b"])] == ["b"]


def test_landmarks_as_points_are_kept_exactly_and_become_balls(tmp_path: Path) -> None:
    """The points of the MR lie at LANDMARKS_MM about the origin, those of the TRUS are shifted."""
    write_dataset(tmp_path, "muregpro", ("a",), landmarks=0)
    for side, shift in (("mr", np.zeros(3)), ("trus", np.array(TRUS_SHIFT_MM))):
        points = [",".join(["name", "x_lps", "y_lps", "z_lps"])]
        points += [
            ",".join([name, *(f"{value:.3f}" for value in place + shift)])
            for name, place in zip(("cyst", "apex"), np.array(LANDMARKS_MM), strict=True)
        ]
        (tmp_path / f"{side}.csv").write_text("\n".join(points))
    path = write_manifest(tmp_path, [row("a", mr_landmarks="mr.csv", trus_landmarks="trus.csv")])
    case = load_case(find_cases(path, "manifest")[0])
    assert case.label_names == ("gland", "cyst", "apex")
    assert case.points is not None
    np.testing.assert_allclose(case.points.mr.points_mm, LANDMARKS_MM, atol=1e-9)
    np.testing.assert_allclose(case.points.trus.points_mm - case.points.mr.points_mm, [TRUS_SHIFT_MM] * 2)
    for labels, points_mm in (
        (case.mr_labels, case.points.mr.points_mm),
        (case.trus_labels, case.points.trus.points_mm),
    ):
        for label, point_mm in zip(labels[1:], points_mm, strict=True):
            np.testing.assert_allclose(mask_centroid_mm(label), point_mm, atol=0.5)
            volume_mm3 = array(label).sum() * np.prod(label.GetSpacing())
            assert volume_mm3 == pytest.approx(4 / 3 * np.pi * 27, rel=0.25)


def test_the_truth_and_the_orientation_of_a_manifest(tmp_path: Path) -> None:
    write_dataset(tmp_path, "muregpro", ("a",))
    sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), str(tmp_path / "true.tfm"))
    path = write_manifest(tmp_path, [row("a", truth="true.tfm", mr_orientation="RAS")])
    case = load_case(find_cases(path, "manifest")[0])
    assert case.truth is not None
    assert case.truth.TransformPoint((0.0, 0.0, 0.0)) == pytest.approx((1.0, 2.0, 3.0))
    assert orientation_code(case.mr.GetDirection()) == "RAS"
    assert orientation_code(case.trus.GetDirection()) == "LPS"
    # The labels lie on the voxels that they were drawn on.
    assert array(case.mr)[array(case.mr_gland) > 0].min() > array(case.mr).min() + 50


# --- what is refused -----------------------------------------------------------------------------------


def test_tables_that_cannot_be_understood_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, "muregpro", ("a", "b"))
    refused(tmp_path, [], "lists no cases")
    refused(tmp_path, [row("a"), row("a")], "case a twice")
    refused(tmp_path, [row("a") | {"patient": ""}], "line 2 has no patient")
    refused(tmp_path, [row("a", truht="x.h5")], "'truht'", "'truth'")
    refused(tmp_path, [row("a", split="validation")], "line 2", "'validation'", "train, val, test")
    refused(tmp_path, [row("a", mr_landmarks="p.csv")], "landmarks in one modality only")
    refused(tmp_path, [row("a", mr_landmarks="p.nii.gz", trus_landmarks="q.csv")], "not points")
    (tmp_path / "manifest.csv").write_text("case,mr,trus\na,b,c\n")
    with pytest.raises(InputError, match="no column patient"):
        find_cases(tmp_path, "manifest")
    (tmp_path / "manifest.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        find_cases(tmp_path, "manifest")
    with pytest.raises(InputError, match="does not exist"):
        find_cases(tmp_path / "absent.csv", "manifest")


@pytest.mark.parametrize("name", ["../evil", "d/e", "nul", ".hidden"])
def test_a_case_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    refused(tmp_path, [row(name)], repr(name), "cannot be the name of a folder")


def test_missing_files_and_unknown_names_are_named(tmp_path: Path) -> None:
    write_dataset(tmp_path, "muregpro", ("a",))
    path = write_manifest(tmp_path, [row("a"), row("b")])
    with pytest.raises(InputError, match=r"Case b lacks the file .*b\.nii\.gz"):
        find_cases(path, "manifest")
    with pytest.raises(InputError, match="no case c"):
        find_cases(path, "manifest", ["c"])


def test_points_and_channels_together_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, "muregpro", ("a",))
    (tmp_path / "p.csv").write_text("name,x_lps,y_lps,z_lps\napex,0,0,0\n")
    path = write_manifest(tmp_path, [row("a", mr_landmarks="p.csv", trus_landmarks="p.csv")])
    with pytest.raises(InputError, match="in one way"):
        load_case(find_cases(path, "manifest")[0])


def test_a_landmark_point_in_one_modality_only_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, "muregpro", ("a",), landmarks=0)
    (tmp_path / "p.csv").write_text("name,x_lps,y_lps,z_lps\napex,0,0,0\nbase,0,0,5\n")
    (tmp_path / "q.csv").write_text("name,x_lps,y_lps,z_lps\napex,0,0,0\n")
    path = write_manifest(tmp_path, [row("a", mr_landmarks="p.csv", trus_landmarks="q.csv")])
    with pytest.raises(InputError, match="base"):
        load_case(find_cases(path, "manifest")[0])


def test_a_point_beside_the_image_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, "muregpro", ("a",), landmarks=0)
    (tmp_path / "p.csv").write_text("name,x_lps,y_lps,z_lps\nfar,0,0,38\n")
    path = write_manifest(tmp_path, [row("a", mr_landmarks="p.csv", trus_landmarks="p.csv")])
    with pytest.raises(InputError, match="landmark far"):
        load_case(find_cases(path, "manifest")[0])


# --- splits --------------------------------------------------------------------------------------------


def test_parts_from_the_split_column(tmp_path: Path) -> None:
    write_dataset(tmp_path, "muregpro", ("a", "b", "c"))
    rows = [row("a", split="train"), row("b", split="Val"), row("c")]
    path = write_manifest(tmp_path, rows)
    assert find_parts(path, "manifest") == {"train": ("a",), "val": ("b",)}
    assert [case.name for case in find_part(path, "manifest", "val")] == ["b"]
    with pytest.raises(InputError, match="no cases in 'test'"):
        find_part(path, "manifest", "test")


def test_a_patient_on_both_sides_of_the_manifest_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, "muregpro", ("a", "b"))
    rows = [row("a", patient="P", split="train"), row("b", patient="P", split="val")]
    refused(tmp_path, rows, "patient P is in train (case a) and in val (case b)")


@pytest.mark.parametrize("layout", ["mrus", "muregpro"])
def test_a_patient_on_both_sides_of_a_split_file_is_refused(tmp_path: Path, layout: str) -> None:
    write_dataset(tmp_path, layout, ("a", "b", "c"))
    good = {"train": ["a", "b"], "val": ["c"], "patients": [["a", "b"], ["c"]]}
    bad = {"train": ["a"], "val": ["b", "c"], "patients": [["a", "b"], ["c"]]}
    own, given = tmp_path / "splits.json", tmp_path / "other.json"
    own.write_text(json.dumps(good))
    assert find_parts(tmp_path, layout) == {"train": ("a", "b"), "val": ("c",)}  # type: ignore[arg-type]
    given.write_text(json.dumps(bad))
    with pytest.raises(InputError, match=r"other\.json leaks: patient a .*case b"):
        find_parts(tmp_path, layout, split_file=given)  # type: ignore[arg-type]
    own.write_text(json.dumps(bad))
    with pytest.raises(InputError, match="leaks"):
        find_cases(tmp_path, layout)  # type: ignore[arg-type]


def test_groups_of_the_data_set_hold_for_another_split_without_groups(tmp_path: Path) -> None:
    write_dataset(tmp_path, "mrus", ("a", "b", "c"))
    (tmp_path / "splits.json").write_text(json.dumps({"patients": [["a", "b"], ["c"]]}))
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    with pytest.raises(InputError, match="leaks"):
        find_parts(tmp_path, "mrus", split_file=other)
    other.write_text(json.dumps(["a"]))
    with pytest.raises(InputError, match="not a split"):
        find_parts(tmp_path, "mrus", split_file=other)


@pytest.mark.parametrize("base", ["nifti_data", "."])
def test_the_nested_download_is_read_with_its_own_split(tmp_path: Path, base: str) -> None:
    write_dataset(tmp_path / base / "train", "muregpro", ("case000000", "case000001"))
    write_dataset(tmp_path / base / "val", "muregpro", ("case000065",))
    assert detect_layout(tmp_path) == "muregpro"
    cases = find_cases(tmp_path, "muregpro")
    assert [case.name for case in cases] == ["case000000", "case000001", "case000065"]
    assert cases[2].mr_path == tmp_path / base / "val" / "mr_images" / "case000065.nii.gz"
    parts = find_parts(tmp_path, "muregpro")
    assert parts == {"train": ("case000000", "case000001"), "val": ("case000065",)}
    groups = {"patients": [["case000000", "case000001"]]}
    (tmp_path / "splits.json").write_text(json.dumps(groups))
    assert find_parts(tmp_path, "muregpro") == parts, "groups alone are no split"
    assert find_cases(tmp_path, "muregpro")[1].patient == "case000000"
    loaded = load_case(find_part(tmp_path, "muregpro", "val")[0])
    assert isinstance(loaded, LoadedCase)
    assert loaded.label_names == ("gland", "landmark 1", "landmark 2")


@pytest.mark.parametrize("groups", [{"p": ["a"]}, ["a"], [["a", 1]], "a"])
def test_groups_of_another_form_are_refused(tmp_path: Path, groups: object) -> None:
    write_dataset(tmp_path, "mrus", ("a",))
    (tmp_path / "splits.json").write_text(json.dumps({"patients": groups}))
    with pytest.raises(InputError, match="list of lists"):
        find_cases(tmp_path, "mrus")


def test_layouts_are_told_apart(tmp_path: Path) -> None:
    write_dataset(tmp_path / "one", "mrus", ("a",))
    write_dataset(tmp_path / "two", "muregpro", ("a",))
    path = write_manifest(tmp_path / "two", [row("a")])
    assert detect_layout(tmp_path / "one") == "mrus"
    assert detect_layout(path) == detect_layout(tmp_path / "two") == "manifest"
    path.unlink()
    assert detect_layout(tmp_path / "two") == "muregpro"
    with pytest.raises(InputError, match="not a data set"):
        detect_layout(tmp_path)

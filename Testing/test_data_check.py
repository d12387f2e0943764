"""What `mrtrus-train check` finds: each fault put into a data set without any."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import typer
from dataset_case import write_dataset
from scipy.ndimage import gaussian_filter
from shapes import array, points_mm, turned

from MRTRUSRegistrationLib.cli_support import run_app
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid
from MRTRUSTraining.data.check import SAME_IMAGE, CheckReport, check, check_data
from MRTRUSTraining.data.duplicates import Fingerprint, duplicates

NAMES = ("a", "b", "c", "d")


def texture(grid: Grid, seed: int) -> np.ndarray:
    """(k, j, i) structure of some millimetres that no other seed has, 20 to 220."""
    noise = np.random.default_rng(seed).normal(size=grid.size_vox[::-1])
    smooth = gaussian_filter(noise, 2.0)
    return np.clip(120 + 35 * smooth / smooth.std(), 20, 220)


def write_distinct(folder: Path, layout: str = "muregpro", names: tuple[str, ...] = NAMES) -> Path:
    """A data set whose images differ from case to case, as those of patients do."""
    write_dataset(folder, layout, names)
    sides = {"mrus": ("moving", "fixed"), "muregpro": ("mr", "us")}[layout]
    for n, name in enumerate(names):
        for m, side in enumerate(sides):
            path = folder / f"{side}_images" / f"{name}.nii.gz"
            image = sitk.ReadImage(str(path))
            sitk.WriteImage(
                Grid.of(image).image(texture(Grid.of(image), 2 * n + m).astype(np.uint8)), str(path)
            )
    return folder


def change(path: Path, new: np.ndarray) -> None:
    """Other voxels in the same file; 4-D where they are."""
    image = sitk.ReadImage(str(path))
    changed = sitk.GetImageFromArray(new, isVector=False)
    if changed.GetSize() == image.GetSize():
        changed.CopyInformation(image)
    sitk.WriteImage(changed, str(path))


def codes(folder: Path, layout: str = "muregpro") -> list[tuple[str, str, tuple[str, ...]]]:
    report = check_data(folder, layout)  # type: ignore[arg-type]
    return [(found.severity, found.code, found.cases) for found in report.findings]


@pytest.mark.parametrize("layout", ["mrus", "muregpro"])
def test_a_sound_data_set_has_no_findings(tmp_path: Path, layout: str) -> None:
    write_distinct(tmp_path, layout)
    split = {"train": ["a", "b", "c"], "val": ["d"], "patients": [["a", "b"], ["c"], ["d"]]}
    (tmp_path / "splits.json").write_text(json.dumps(split))
    shares: list[float] = []
    report = check_data(tmp_path, layout, on_progress=shares.append)  # type: ignore[arg-type]
    assert report == CheckReport(layout, 4, 3, ())  # type: ignore[arg-type]
    assert shares == [0.25, 0.5, 0.75, 1.0]


# --- files and labels ----------------------------------------------------------------------------------


def test_missing_files_are_found_in_every_folder(tmp_path: Path) -> None:
    write_distinct(tmp_path)
    (tmp_path / "mr_images" / "a.nii.gz").unlink()
    (tmp_path / "us_labels" / "b.nii.gz").unlink()
    report = check_data(tmp_path, "muregpro")
    assert [(found.code, found.cases) for found in report.errors] == [
        ("missing_file", ("a",)),
        ("missing_file", ("b",)),
    ]
    assert "mr_images" in report.errors[0].message
    assert "us_labels" in report.errors[1].message


def test_unreadable_files_are_errors_and_the_rest_is_still_checked(tmp_path: Path) -> None:
    write_distinct(tmp_path)
    (tmp_path / "mr_images" / "a.nii.gz").write_bytes(b"broken")
    (tmp_path / "us_labels" / "b.nii.gz").write_bytes(b"broken")
    path = tmp_path / "us_images" / "c.nii.gz"
    change(path, np.full_like(array(sitk.ReadImage(str(path))), 7))
    assert codes(tmp_path) == [("error", "unreadable", (name,)) for name in ("a", "b", "c")]


def test_label_faults_each_have_their_code(tmp_path: Path) -> None:
    """Channels have axes (channel, k, j, i)."""
    write_distinct(tmp_path)
    labels = {name: array(sitk.ReadImage(str(tmp_path / "mr_labels" / f"{name}.nii.gz"))) for name in NAMES}
    labels["b"][0] = 0
    labels["c"][1] = 0
    labels["d"][2] *= 3
    change(tmp_path / "mr_labels" / "a.nii.gz", labels["a"][:2])
    for name in ("b", "c", "d"):
        change(tmp_path / "mr_labels" / f"{name}.nii.gz", labels[name])
    assert codes(tmp_path)[:3] == [
        ("error", "channel_count", ("a",)),
        ("error", "empty_gland", ("b",)),
        ("warning", "label_geometry", ("a",)),
    ]
    assert codes(tmp_path)[3:] == [
        ("warning", "landmark_unpaired", ("c",)),
        ("warning", "label_values", ("d",)),
    ]


def test_labels_of_another_size_or_place(tmp_path: Path) -> None:
    write_distinct(tmp_path)
    path = tmp_path / "us_labels" / "a.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(path))[1:, :, :, :], str(path))
    path = tmp_path / "us_labels" / "b.nii.gz"
    moved = sitk.ReadImage(str(path))
    moved.SetOrigin([value + 1.0 for value in moved.GetOrigin()])
    sitk.WriteImage(moved, str(path))
    assert codes(tmp_path) == [("error", "label_size", ("a",)), ("warning", "label_geometry", ("b",))]


@pytest.mark.parametrize(("eroded_vox", "severity"), [(2, "warning"), (5, "error")])
def test_glands_of_different_volume(tmp_path: Path, eroded_vox: int, severity: str) -> None:
    """Half axes of 17, 14 and 15 mm less 3.2 or 8 mm: volumes at a factor of 2 or 10."""
    write_distinct(tmp_path)
    path = tmp_path / "mr_labels" / "a.nii.gz"
    channels = array(sitk.ReadImage(str(path)))
    gland = sitk.GetImageFromArray((channels[0] > 0).astype(np.uint8))
    channels[0] = array(sitk.BinaryErode(gland, [eroded_vox] * 3, sitk.sitkBall))
    change(path, channels)
    assert codes(tmp_path) == [(severity, "gland_volume", ("a",))]


def test_spacing_and_size_outliers(tmp_path: Path) -> None:
    write_distinct(tmp_path, names=("a", "b", "c", "d", "e"))
    for kind in ("images", "labels"):
        path = tmp_path / f"us_{kind}" / "b.nii.gz"
        image = sitk.ReadImage(str(path))
        spacing = list(image.GetSpacing())
        spacing[0] *= 0.6
        image.SetSpacing(spacing)
        sitk.WriteImage(image, str(path))
    found = check_data(tmp_path, "muregpro").findings
    outlier = next(each for each in found if each.code == "spacing_outlier")
    assert (outlier.severity, outlier.cases) == ("warning", ("b",))
    assert "0.9 × 1.5 × 1.5 mm where 1.5 × 1.5 × 1.5 mm" in outlier.message
    assert not [each for each in found if each.code == "extent_outlier"]


# --- splits and duplicates -----------------------------------------------------------------------------


def test_faults_of_the_split(tmp_path: Path) -> None:
    write_distinct(tmp_path)
    split = {"train": ["a", "b"], "val": ["c", "x"], "patients": [["b", "c"]]}
    (tmp_path / "splits.json").write_text(json.dumps(split))
    assert codes(tmp_path) == [
        ("error", "split_leak", ("b", "c")),
        ("error", "split_unknown", ("x",)),
        ("warning", "split_left_out", ("d",)),
    ]
    (tmp_path / "splits.json").write_text('{"train": 3}')
    assert codes(tmp_path) == [("error", "split_unreadable", ())]


@pytest.mark.slow
def test_a_renamed_and_shifted_copy_is_found(tmp_path: Path) -> None:
    """The MR of c is that of a, moved by 3 voxels with new noise: one patient under two names."""
    write_distinct(tmp_path)
    first, copy = (tmp_path / "mr_images" / f"{name}.nii.gz" for name in ("a", "c"))
    grid = Grid.of(sitk.ReadImage(str(first)))
    voxels = array(sitk.ReadImage(str(first))).astype(float)
    moved = np.roll(voxels, 3, axis=2)
    moved[..., :3] = 0
    change(
        copy, (0.7 * moved + np.random.default_rng(9).normal(0, 3, moved.shape)).clip(0, 255).astype(np.uint8)
    )
    assert Grid.of(sitk.ReadImage(str(copy))) == grid
    assert codes(tmp_path) == [("warning", "duplicate_patient", ("a", "c"))]
    split = {"train": ["a", "b"], "val": ["c", "d"]}
    (tmp_path / "splits.json").write_text(json.dumps(split))
    assert codes(tmp_path) == [("error", "duplicate_leak", ("a", "c"))]
    (tmp_path / "splits.json").write_text(json.dumps({"train": ["a", "b"], "val": ["d"]}))
    left_out = ("warning", "split_left_out", ("c",))
    assert codes(tmp_path) == [left_out, ("warning", "duplicate_patient", ("a", "c"))]
    (tmp_path / "splits.json").write_text(json.dumps({"patients": [["a", "c"]]}))
    assert codes(tmp_path) == [], "one MR with two sweeps of one patient is no fault"


def test_the_same_pair_twice_for_one_patient(tmp_path: Path) -> None:
    write_distinct(tmp_path)
    for side in ("mr", "us"):
        content = (tmp_path / f"{side}_images" / "a.nii.gz").read_bytes()
        (tmp_path / f"{side}_images" / "b.nii.gz").write_bytes(content)
    (tmp_path / "splits.json").write_text(json.dumps({"patients": [["a", "b"]]}))
    assert codes(tmp_path) == [("warning", "duplicate_pair", ("a", "b"))]


def test_correlation_ignores_contrast_place_and_grid_but_not_content() -> None:
    grid = Grid((60, 56, 48), (1.5, 1.5, 1.8))
    voxels = texture(grid, 1)
    original = grid.image(voxels)
    finer = Grid.centred(np.array((200.0, -50.0, 9.0)), (70, 60, 50), (1.2, 1.2, 1.8), grid.direction)
    there = sitk.TranslationTransform(3, (grid.centre_mm - finer.centre_mm + (4.0, -3.0, 6.0)).tolist())
    copy = sitk.Resample(
        original, finer.size_vox, there, sitk.sitkLinear, finer.origin_mm, finer.spacing_mm, finer.direction
    )
    prints = {
        "original": Fingerprint.of(original),
        "copy": Fingerprint.of(sitk.Sqrt(copy) * 7.0),
        "other": Fingerprint.of(grid.image(texture(grid, 2))),
        "flat": Fingerprint.of(grid.image(np.full(voxels.shape, 5.0))),
    }
    found = list(duplicates(prints, threshold=0.0))
    assert [pair[:2] for pair in found if pair[2] > 0.9] == [("original", "copy")]
    assert all(pair[2] < 0.7 for pair in found[1:])


def correlation(first: sitk.Image, second: sitk.Image) -> float:
    """Of two images that count as the same; 0 where they do not."""
    prints = {"first": Fingerprint.of(first), "second": Fingerprint.of(second)}
    return next((found[2] for found in duplicates(prints, threshold=SAME_IMAGE)), 0.0)


OBLIQUE = Grid.centred(np.array((5.0, -9.0, 30.0)), (60, 56, 48), (1.5, 1.5, 1.8), turned(0.2, -0.1, 0.3))


@pytest.mark.parametrize("axes", ["PIR", "LAI", "SRP"])
def test_a_copy_stored_with_other_axes_is_found(axes: str) -> None:
    """The same voxels at the same places, in another order in the file, with another contrast."""
    image = OBLIQUE.image(texture(OBLIQUE, 1))
    assert correlation(image, sitk.Sqrt(sitk.DICOMOrient(image, axes))) > 0.95


@pytest.mark.parametrize("axes", ["LPS", "PIR", "LAI", "SRP", "RPS"])
def test_a_copy_whose_header_lost_its_axes_is_found(axes: str) -> None:
    """What other tools leave: the array and its spacing. Of another image no turn is like it."""

    def lost(image: sitk.Image) -> sitk.Image:
        stored = sitk.DICOMOrient(image, axes)
        return Grid(stored.GetSize(), stored.GetSpacing()).image(array(stored) / 255)

    image = sitk.DICOMOrient(OBLIQUE.image(texture(OBLIQUE, 1)), "PIR")
    assert correlation(image, lost(image)) == pytest.approx(1.0, abs=1e-3)
    assert correlation(image, lost(OBLIQUE.image(texture(OBLIQUE, 2)))) == 0.0


def test_values_below_zero_are_content_and_a_flat_image_has_none() -> None:
    image = OBLIQUE.image(texture(OBLIQUE, 1))
    assert correlation(image, (image - 500.0) * 0.1) == pytest.approx(1.0, abs=1e-3)
    flat = OBLIQUE.image(np.full(OBLIQUE.size_vox[::-1], -7.0))
    assert correlation(image, flat) == correlation(flat, flat) == 0.0


@pytest.mark.parametrize("cut_vox", [3, 6])
def test_a_copy_that_was_cut_off_on_all_sides_is_found(cut_vox: int) -> None:
    """Where the large-scale shading is strong, near the border of a copy all depends on what lies beyond."""
    shading = 5 * (points_mm(OBLIQUE) - OBLIQUE.centre_mm) @ np.array((0.6, 0.5, 0.4))
    image, other = (OBLIQUE.image(2000 + shading + texture(OBLIQUE, seed)) for seed in (1, 2))
    inner = (slice(cut_vox, -cut_vox),) * 3
    assert correlation(image, image[inner]) > 0.99
    assert correlation(image, other[inner]) == 0.0


# --- the command ---------------------------------------------------------------------------------------


def run(*arguments: object) -> int:
    app = typer.Typer()
    app.command("check")(check)
    app.command("other")(lambda: None)
    return run_app(app, ["check", *map(str, arguments)])


def test_the_command_reports_and_its_exit_code_says_whether_anything_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = write_distinct(tmp_path / "data"), tmp_path / "found.json"
    assert run(data, "--output", output) == 0
    assert "nothing was found" in capsys.readouterr().out
    assert json.loads(output.read_text())["findings"] == []
    (data / "splits.json").write_text(json.dumps({"train": ["a"], "val": ["b", "c"]}))
    assert run(data, "--layout", "muregpro") == 0, "a warning does not fail"
    assert "split_left_out" in capsys.readouterr().out
    (data / "mr_labels" / "b.nii.gz").unlink()
    assert run(data, "--output", output) == InputError.exit_code
    written = json.loads(output.read_text())
    assert (written["errors"], written["cases"], written["layout"]) == (1, 4, "muregpro")
    assert written["findings"][0]["code"] == "missing_file"
    assert run(data, "--layout", "nifti") == 2
    assert "not known" in capsys.readouterr().err


def write_manifest(folder: Path) -> Path:
    """The same files as a manifest beside them."""
    rows = ["case,patient,mr,trus,mr_labels,trus_labels"]
    for name in NAMES:
        files = (f"{part}/{name}.nii.gz" for part in ("mr_images", "us_images", "mr_labels", "us_labels"))
        rows.append(",".join((name, name, *files)))
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize(
    ("checked", "output"),
    [
        ("manifest.csv", "manifest.csv"),
        ("manifest.csv", "mr_images/../us_labels/b.nii.gz"),
        (".", "manifest.csv"),
        (".", "notes.json"),
        (".", "mr_images"),
    ],
)
def test_nothing_but_an_earlier_report_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checked: str, output: str
) -> None:
    write_manifest(write_distinct(tmp_path))
    (tmp_path / "notes.json").write_text('{"layout": "mine"}')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run(tmp_path / checked, "--output", tmp_path / output) == InputError.exit_code
    said = capsys.readouterr()
    assert "The output" in said.err
    assert not said.out, "it is refused before the check"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("output", ["splits.json", "manifest.csv", "us_labels/e.nii.gz"])
def test_no_report_becomes_a_part_of_the_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    write_distinct(tmp_path)
    assert run(tmp_path, "--output", tmp_path / output) == InputError.exit_code
    assert "the data set itself" in capsys.readouterr().err
    assert not (tmp_path / output).exists()


def test_the_folder_of_the_report_is_made_and_what_cannot_be_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = write_distinct(tmp_path / "data"), tmp_path / "new" / "folder" / "found.json"
    assert run(data, "--output", output) == 0
    assert json.loads(output.read_text())["cases"] == 4
    capsys.readouterr()
    assert run(data, "--output", output / "found.json") == InputError.exit_code
    said = capsys.readouterr()
    assert "cannot be written" in said.err
    assert not said.out, "it is refused before the check"


def test_findings_are_shown_even_where_their_file_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(text: str, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("MRTRUSTraining.data.check.write_text_atomically", full)
    assert run(write_distinct(tmp_path / "data"), "--output", tmp_path / "found.json") != 0
    assert "nothing was found" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["odd[red]", "odd[", "[bold", ":x:"])
def test_names_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Markup and emoji codes of the library that prints; `[/x]` alone would be an error."""
    monkeypatch.setenv("COLUMNS", "300")
    data = write_distinct(tmp_path / name / "x]", names=("a", "b"))
    (data / "us_labels" / "b.nii.gz").unlink()
    assert run(data) == InputError.exit_code
    shown = capsys.readouterr().out
    assert f"{data}: 2 cases" in shown
    assert f"lacks {data}" in shown
    write_distinct(data, names=("a", "b"))
    assert run(data) == 0
    assert f"{data}: 2 cases" in capsys.readouterr().out

"""The page of pictures of an evaluated case."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from dataset_case import write_dataset
from PIL import Image

from MRTRUSRegistrationLib.cli import add_plugins

RED, YELLOW, BLUE = (255, 0, 0), (255, 255, 0), (0, 191, 255)


def evaluate_with_pictures(folder: Path, run_cli, *options: str | Path) -> int:
    add_plugins()
    given = ["--data", folder, "--layout", "muregpro", "--masks", "reference", "--output", folder / "out"]
    return run_cli(["evaluate", *given, "--methods", "initial,centroid", *options])[0]


def of_colour(page: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """(row, column): which pixels have about this colour."""
    return np.abs(page.astype(int) - colour).max(axis=-1) < 60


def seen(page: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int(of_colour(page, colour).sum())


def left(page: np.ndarray, colour: tuple[int, int, int]) -> int:
    """The leftmost column of an outline in the first picture of a row."""
    return int(np.argwhere(of_colour(page[:, : page.shape[1] // 6], colour))[:, 1].min())


@pytest.fixture
def page(tmp_path: Path, run_cli) -> np.ndarray:
    write_dataset(tmp_path, "muregpro", ("a",))
    assert evaluate_with_pictures(tmp_path, run_cli, "--pictures") == 0
    return np.asarray(Image.open(tmp_path / "out" / "pictures" / "a.png").convert("RGB"))


def test_a_page_has_a_row_of_outlines_and_one_a_method(page: np.ndarray) -> None:
    height, width = page.shape[:2]
    assert height / width == pytest.approx(3 / 6, abs=0.01)
    outlines, before, after = np.array_split(page, 3)
    # Reference masks were used, so that the red lies within the broader blue.
    assert min(seen(outlines, RED), seen(outlines, BLUE)) > 100
    assert seen(outlines, YELLOW) < 30
    assert min(seen(before, YELLOW), seen(after, YELLOW)) > 300


def test_outlines_meet_where_the_method_matched_them(page: np.ndarray) -> None:
    """Before, the MR's gland lies 2 mm to the right, which is the picture's left."""
    _, before, after = np.array_split(page, 3)
    assert left(before, RED) - left(before, YELLOW) > 4
    assert abs(left(after, RED) - left(after, YELLOW)) <= 2


@pytest.mark.slow
def test_a_case_that_cannot_be_loaded_has_no_page(tmp_path: Path, run_cli) -> None:
    write_dataset(tmp_path, "muregpro", ("a", "b"))
    (tmp_path / "us_labels" / "a.nii.gz").write_bytes(b"broken")
    assert evaluate_with_pictures(tmp_path, run_cli, "--pictures") == 3
    assert [path.name for path in (tmp_path / "out" / "pictures").iterdir()] == ["b.png"]


@pytest.mark.slow
def test_pages_of_an_earlier_evaluation_do_not_stand_beside_other_figures(tmp_path: Path, run_cli) -> None:
    write_dataset(tmp_path, "muregpro", ("a", "b"))
    assert evaluate_with_pictures(tmp_path, run_cli, "--pictures") == 0
    (tmp_path / "out" / "pictures" / "mine.png").touch()
    (tmp_path / "only-b.json").write_text('["b"]', encoding="utf-8")
    assert evaluate_with_pictures(tmp_path, run_cli, "--cases", tmp_path / "only-b.json") == 0
    assert [path.name for path in (tmp_path / "out" / "pictures").iterdir()] == ["mine.png"]
    assert "1 pair," in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert "± nan" not in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")


def test_no_page_is_drawn_unasked(tmp_path: Path, run_cli) -> None:
    write_dataset(tmp_path, "muregpro", ("a",))
    assert evaluate_with_pictures(tmp_path, run_cli) == 0
    assert not (tmp_path / "out" / "pictures").exists()


@pytest.mark.slow
def test_a_page_that_cannot_be_written_costs_no_figures(
    tmp_path: Path, run_cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path, "muregpro", ("a", "b"))
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if target.name == "a.png":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert evaluate_with_pictures(tmp_path, run_cli, "--pictures") == 0
    assert (tmp_path / "out" / "metrics.csv").read_text(encoding="utf-8").count("\n") == 5
    assert [path.name for path in (tmp_path / "out" / "pictures").iterdir()] == ["b.png"]


def test_a_folder_of_pictures_that_cannot_be_made_is_refused_at_once(tmp_path: Path, run_cli) -> None:
    write_dataset(tmp_path, "muregpro", ("a",))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pictures").touch()
    assert evaluate_with_pictures(tmp_path, run_cli, "--pictures") == 2
    assert not list((tmp_path / "out").glob("metrics*"))

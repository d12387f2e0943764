"""The bundled models on the bundled sample case, through the command that the README names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.geometry import Grid
from MRTRUSRegistrationLib.measures import dsc
from MRTRUSRegistrationLib.models import list_models, resources_folder
from MRTRUSRegistrationLib.outputs import FILES

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "Resources" / "SampleCase"


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result folder of the sample case."""
    output = tmp_path_factory.mktemp("sample") / "result"
    command = [sys.executable, "-m", "MRTRUSRegistrationLib", "register"]
    command += [str(SAMPLE / "mr.nii.gz"), str(SAMPLE / "trus.nii.gz"), "--output", str(output)]
    for name in ("mr", "trus"):
        command += [f"--{name}-landmarks", str(SAMPLE / f"{name}_landmarks.mrk.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output


def gland_label(name: str) -> sitk.Image:
    """The true gland of the sample case: the first channel of its labels."""
    labels = sitk.ReadImage(str(SAMPLE / f"{name}_labels.nii.gz"))
    image = Grid.of(sitk.ReadImage(str(SAMPLE / f"{name}.nii.gz")))
    return image.image(sitk.GetArrayFromImage(labels)[0])


def test_the_bundled_models_are_whole_and_small() -> None:
    folder = resources_folder() / "Models"
    bundled = {m.card.name: m for m in list_models() if m.card_path.parent == folder}
    assert {"vnet-mr", "vnet-trus", "cmsa"} <= set(bundled)
    assert all(model.intact for model in bundled.values())
    assert sum(path.stat().st_size for path in folder.iterdir()) < 15_000_000
    assert bundled["cmsa"].card.architecture["parameters"] == 412_411
    assert all(model.card.training_data and model.card.figures for model in bundled.values())


@pytest.mark.slow
def test_every_file_is_written(registered: Path) -> None:
    assert {path.name for path in registered.iterdir()} >= set(FILES)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("mr", 0.85), ("trus", 0.75)])
def test_the_glands_are_found(registered: Path, name: str, least: float) -> None:
    found = sitk.ReadImage(str(registered / f"{name}_mask.nii.gz"))
    assert dsc(found, gland_label(name)) > least


@pytest.mark.slow
def test_the_measures_agree_with_the_transform(registered: Path) -> None:
    result = json.loads((registered / "result.json").read_text(encoding="utf-8"))
    assert result["measures"]["final"]["folds_percent"] == 0
    transform = sitk.ReadTransform(str(registered / "mr_to_trus.h5"))
    markups = [
        json.loads((SAMPLE / f"{name}_landmarks.mrk.json").read_text(encoding="utf-8"))
        for name in ("mr", "trus")
    ]
    mr, _trus = ({p["label"]: p["position"] for p in m["markups"][0]["controlPoints"]} for m in markups)
    for row in result["landmarks"]:
        back = transform.TransformPoint(row["warped_mm"])
        np.testing.assert_allclose(back, mr[row["name"]], atol=0.01)
        gap = np.linalg.norm(np.array(row["warped_mm"]) - row["fixed_mm"])
        assert row["error_mm"] == pytest.approx(gap, abs=1e-3)


@pytest.mark.slow
def test_the_benchmark_runs_in_small() -> None:
    """One repeat of the timing command, with two methods that need no network."""
    script = ROOT / "Testing" / "benchmarks" / "register_time.py"
    images = [str(SAMPLE / "mr.nii.gz"), str(SAMPLE / "trus.nii.gz")]
    options = ["--repeats", "1", "--method", "centroid", "--peer", "rigid"]
    done = subprocess.run(
        [sys.executable, str(script), *images, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "wall time centroid / rigid:" in done.stdout
    assert "align" in done.stdout

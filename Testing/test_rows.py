"""Rows: the files of the package, what they hold, and what is said of a file that is wrong."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from row_case import registration_content, segmentation_content, write_row

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.pipeline import METHOD_NAMES
from MRTRUSTraining.networks.named import build_segmenter
from MRTRUSTraining.registration_settings import RegionLoss, RegistrationSettings, region_settings
from MRTRUSTraining.row import (
    TABLE_NAMES,
    Row,
    all_rows,
    beyond_defaults,
    check_shapes,
    find_row,
    read_row,
    row_from,
    rows_of_table,
)
from MRTRUSTraining.segmentation_training import SegmentationSettings

ROWS = Path(__file__).resolve().parents[1] / "MRTRUSTraining" / "rows"


def test_every_file_is_the_row_of_its_name() -> None:
    assert sorted(all_rows()) == sorted(path.stem for path in ROWS.glob("*.yaml"))
    for name, row in all_rows().items():
        assert row.name == name
        assert row.is_trained == (row.schedule is not None)


def test_the_tables_are_those_of_the_papers() -> None:
    published = {
        table: [
            (row.name, row.place(table).published.dsc, row.place(table).published.tre_mm)
            for row in rows_of_table(table)
            if row.place(table).published.dsc is not None
        ]
        for table in TABLE_NAMES
    }
    assert published["1"] == [
        ("initial", 0.594, 11.45),
        ("rigid", 0.804, 5.49),
        ("label-driven", 0.709, 8.63),
        ("rigid-label-driven", 0.819, 4.99),
        ("segmentation-based", 0.834, 5.29),
        ("ours-1", 0.85, 5.18),
        ("ours-2", 0.859, 4.65),
    ]
    assert published["2"] == [
        ("without-rigid", 0.814, 7.09),
        ("without-cmsa", 0.803, 5.48),
        ("without-srml", 0.804, 5.0),
        ("ours-2", 0.859, 4.65),
    ]
    assert published["B"] == [
        ("paper-b-mr-2d", 0.9154, None),
        ("paper-b-trus-2d", 0.9384, None),
        ("rern", 0.7481, 7.8562),
    ]
    assert published["V"] == [("vnet-official-mr", 0.886, None), ("vnet-official-trus", 0.904, None)]


@pytest.mark.parametrize("kind", [RegistrationSettings, SegmentationSettings])
def test_no_row_of_the_tables_is_favoured(kind: type) -> None:
    """Steps, rates, random changes, grid and seed are the same in all trained rows of a kind.

    Table V is apart: its rows have the budget of the official code.
    """
    rows = [r for table in "12B" for r in rows_of_table(table) if isinstance(r.method, kind)]
    alike = {"schedule": {repr(row.schedule) for row in rows}, "seed": {row.seed for row in rows}}
    names = ("misalignment", "shared", "mask_error", "intensity", "grid_vox", "spatial", "preprocessing")
    for name in names:
        alike[name] = {repr(getattr(row.method, name, None)) for row in rows}
    assert len(rows) > 3
    assert {name: len(values) for name, values in alike.items()} == dict.fromkeys(alike, 1)
    assert not any(row.method.mirror_averaged for row in rows)


def test_the_ablations_differ_from_the_full_method_in_one_thing() -> None:
    full = find_row("ours-2").method
    assert isinstance(full, RegistrationSettings)
    changes: dict[str, dict[str, Any]] = {
        "without-rigid": {"alignment": "initial"},
        "without-cmsa": {"options": {**full.options, "attention": False}},
        "without-srml": {"loss": replace(full.loss, mi=0.0, mi_domain="gland")},
        "voxelmorph": {
            "network": "voxelmorph",
            "options": {"integration_steps": 7, "initialisation": "kept"},
        },
        "ours-2-text": {"loss": replace(full.loss, mi=1.0, mi_domain="gland")},
        "ours-1": {"loss": replace(full.loss, structures="gland", gland=1.0)},
    }
    for name, change in changes.items():
        assert find_row(name).method == replace(full, **change), name


def test_weights_of_the_paper() -> None:
    for name, mi, domain in (("ours-2-text", 1.0, "gland"), ("ours-2", 0.4, "volume")):
        loss = find_row(name).method.loss  # type: ignore[union-attr]
        assert (loss.mi, loss.mi_domain, loss.gland, loss.landmark) == (mi, domain, 0.1, 0.3)
        assert loss.smoothness == 0.4
    hu = find_row("label-driven").method.loss  # type: ignore[union-attr]
    assert (hu.mi, hu.smoothness, hu.structures) == (0.0, 0.0, "one")
    # In voxels of the rows' 1.5 mm what 0.5 is in those of the paper's 0.8 mm.
    assert hu.bending == pytest.approx(0.5 * (0.8 / 1.5) ** 2, abs=5e-4)
    assert [scale / 0.8 for scale in hu.dice_scales_mm] == pytest.approx([0, 1, 2, 4, 8, 16])
    assert hu.dice == "per-label"
    assert find_row("rigid-label-driven").method.loss == hu  # type: ignore[union-attr]


def test_the_official_codes_loss_is_all_that_its_row_changes() -> None:
    paper, code = find_row("ours-2"), find_row("ours-2-code")
    assert isinstance(paper.method, RegistrationSettings)
    loss = RegionLoss(mi=0.4, mi_domain="volume", dice="classes", smoothness=0.4)
    assert code.method == replace(paper.method, loss=loss)
    assert (code.schedule, code.data, code.seed) == (paper.schedule, paper.data, paper.seed)
    assert {place.published.dsc for place in code.places} == {None}


@pytest.mark.parametrize("modality", ["mr", "trus"])
def test_the_official_segmenter_has_the_codes_width(modality: str) -> None:
    official, ours = find_row(f"vnet-official-{modality}"), find_row(f"vnet-{modality}")
    assert isinstance(official.method, SegmentationSettings)
    assert isinstance(ours.method, SegmentationSettings)
    with torch.device("meta"):
        network = build_segmenter(official.method.network, **official.method.options)
    assert sum(parameter.numel() for parameter in network.parameters()) == 9_443_266
    assert (official.method.loss, official.method.volume_agreement) == ("dice", None)
    assert official.schedule == find_row("vnet-official-mr").schedule
    for name in ("modality", "preprocessing", "training_vox", "window_vox", "spatial", "intensity"):
        assert getattr(official.method, name) == getattr(ours.method, name), name


def test_registration_rows_of_the_tables_have_one_box() -> None:
    rows = [row for table in TABLE_NAMES for row in rows_of_table(table)]
    boxes = {row.method.grid_vox for row in rows if isinstance(row.method, RegistrationSettings)}
    assert boxes == {(64, 48, 48)}


def test_classical_rows_are_methods_of_the_pipeline() -> None:
    classical = [row for row in all_rows().values() if not row.is_trained]
    assert [row.pipeline_method for row in classical] == ["initial", "centroid", "rigid", "syn"]
    assert {row.pipeline_method for row in classical} < set(METHOD_NAMES)


def test_what_the_card_says_of_a_rows_inputs() -> None:
    said = {name: region_settings(find_row(name).method) for name in ("cmsa", "ours-2")}  # type: ignore[arg-type]
    sharper = {"detail": 0.055, "model": "cmsa-structures"}
    cmsa = {"intensity_floor": 0.5, "sharper": sharper}
    assert said == {"cmsa": cmsa, "ours-2": {"intensity_floor": 0.0}}
    turned = {"intensity_floor": 0.5, "context": 1.0, "alignment": "centroid", "rigid_part": True}
    assert region_settings(find_row("cmsa-turned").method) == turned  # type: ignore[arg-type]
    seers = {"MR": "structures-mr", "TRUS": "structures-trus"}
    shown = {**turned, "extend_mm": 9.0, "structures": seers, "coordinates": True}
    assert region_settings(find_row("cmsa-structures").method) == shown  # type: ignore[arg-type]
    images = {"intensity_floor": 0.0, "context": 1.0}
    rern = {**images, "box": "volume", "alignment": "initial"}
    assert region_settings(find_row("rern").method) == rern  # type: ignore[arg-type]
    both = region_settings(find_row("segmentation-based").method)  # type: ignore[arg-type]
    assert both == {**images, "inputs": "images+masks"}


# --- shapes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ours-2", "segmentation-based", "rern", "cmsa-structures", "paper-b-mr-3d"])
def test_the_rows_networks_take_their_inputs(name: str) -> None:
    check_shapes(find_row(name))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ours-2", {"grid_vox": (65, 49, 47)}, r"cmsa does not work on a grid_vox of \[65, 49, 47\]"),
        ("ours-2", {"grid_vox": (0, 0, 0)}, "does not work on a grid_vox"),
        ("ours-2", {"inputs": "images+masks"}, "cmsa does not take these inputs"),
        ("vnet-mr", {"training_vox": (80, 81, 64)}, "vnet does not work on a training_vox"),
    ],
)
def test_inputs_that_a_network_does_not_take_are_refused(name: str, change: dict, message: str) -> None:
    row = find_row(name)
    with pytest.raises(InputError, match=message):
        check_shapes(replace(row, method=replace(row.method, **change)))


# --- identity --------------------------------------------------------------------------------------------


def test_a_setting_that_comes_later_changes_no_identity() -> None:
    """Only what differs from its default counts, also in settings within settings."""

    @dataclass(frozen=True)
    class Inner:
        weight: float = 1.0
        later: tuple[int, ...] = ()

    @dataclass(frozen=True)
    class Outer:
        name: str
        inner: Inner = Inner()
        other: Inner = field(default_factory=Inner)

    assert beyond_defaults(Outer("a")) == {"name": "a"}
    assert beyond_defaults(Outer("a", Inner(2.0))) == {"name": "a", "inner": {"weight": 2.0}}
    assert beyond_defaults(Outer("a", other=Inner(later=(1,)))) == {"name": "a", "other": {"later": (1,)}}


def test_what_only_the_card_says_changes_no_identity() -> None:
    row = find_row("cmsa-structures")
    assert replace(row, method=replace(row.method, extend_mm=3.0)).identity == row.identity
    segmenter = find_row("structures-trus")
    assert (
        replace(segmenter, method=replace(segmenter.method, eight_bit=False)).identity == segmenter.identity
    )


def test_a_row_stays_itself_when_it_becomes_longer() -> None:
    row = row_from(registration_content(), "row")
    assert row.schedule is not None
    longer = replace(row, schedule=replace(row.schedule, steps=99, validations=9), title="Another title")
    assert longer.identity == row.identity
    for other in (
        replace(row, seed=6),
        replace(row, schedule=replace(row.schedule, learning_rate=1e-4)),
        replace(row, method=replace(row.method, grid_vox=(48, 16, 16))),
    ):
        assert other.identity != row.identity


@pytest.mark.parametrize("name", sorted(path.stem for path in ROWS.glob("*.yaml")))
def test_a_row_comes_back_from_its_record(name: str) -> None:
    row = find_row(name)
    again = row_from(row.as_dict(), "run.json")
    assert again.identity == row.identity
    assert again.as_dict() == row.as_dict()


# --- bad files -------------------------------------------------------------------------------------------


def changed(content: dict[str, Any], keys: str, value: Any) -> dict[str, Any]:
    """The content with another value at a dotted place; `...` removes it."""
    copied = copy.deepcopy(content)
    *parents, last = keys.split(".")
    place = copied
    for key in parents:
        place = place.setdefault(key, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return copied


REGISTRATION = [
    ("titel", "x", "the key titel is not known; do you mean title"),
    ("method.aligment", "rigid", "the key method.aligment is not known; do you mean alignment"),
    ("method.loss.landmarks", 0.3, "the key method.loss.landmarks is not known; do you mean landmark"),
    ("method.shared.qqq", 1, "the key method.shared.qqq is not known; known are rotation_deg, log_scale"),
    ("schedule.step", 4, "the key schedule.step is not known; do you mean steps"),
    ("places", [{"table": "1", "position": 1, "titel": "x"}], "the key places.0.titel is not known"),
    ("name", ..., "the key name is missing"),
    ("schedule", ..., "the key schedule is missing"),
    ("schedule.steps", ..., "the key schedule.steps is missing"),
    ("method.kind", ..., "the key method.kind is missing; use classical, registration or segmentation"),
    ("method.kind", "magic", "method cannot be"),
    ("schedule.steps", "many", 'schedule.steps cannot be "many" (input should be a valid integer)'),
    ("schedule.steps", 0, "schedule.steps cannot be 0"),
    ("schedule.steps", 2.5, "schedule.steps cannot be 2.5"),
    ("schedule.learning_rate", True, "schedule.learning_rate cannot be true"),
    ("method.alignment", "affine", 'method.alignment cannot be "affine"'),
    ("method.grid_vox", [32, 32], "method.grid_vox"),
    ("name", "Two Words", 'name cannot be "Two Words"'),
    ("method.network", "resnet", "no registration network 'resnet'"),
    ("method.options", {"depht": 3}, "no option 'depht'"),
    ("method.loss.dice", "hard", 'method.loss.dice cannot be "hard"'),
    (
        "method.loss",
        {"dice": "classes", "dice_scales_mm": [0.0, 2.0]},
        "dice_scales_mm is not for dice: classes",
    ),
    ("method.loss", {"dice": "classes", "structures": "gland"}, "structures cannot be gland with dice"),
    ("method.margin_mm", -1.0, "margin_mm cannot be -1"),
    ("method.loss", {"gland_decays": True, "structures": "gland"}, "gland_decays is for structures: all"),
    ("method.loss", {"gland_decays": True, "dice": "per-label"}, "gland_decays is for dice: weighted"),
    ("method.loss", {"dice_squared": False, "dice": "classes"}, "dice_squared is for dice: weighted"),
    (
        "method",
        {**registration_content()["method"], "margin_mm": 8.0, "inputs": "images"},
        "for inputs: regions",
    ),
    ("method.box", "trus", 'method.box cannot be "trus"'),
    ("method.loss", {"dice": "classes", "structures": "one"}, "structures cannot be one with dice: classes"),
    ("data.layout", "dicom", 'data.layout cannot be "dicom"'),
]


@pytest.mark.parametrize(("keys", "value", "message"), REGISTRATION, ids=lambda each: str(each)[:40])
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, keys: str, value: Any, message: str) -> None:
    path = write_row(tmp_path / "mine.yaml", changed(registration_content(), keys, value))
    with pytest.raises(InputError) as caught:
        read_row(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert message in said
    assert "\n" not in said


def test_an_unknown_key_is_named_before_what_it_was_meant_for() -> None:
    content = changed(changed(segmentation_content(), "method.modality", ...), "method.modalety", "MR")
    with pytest.raises(InputError, match=r"method\.modalety is not known; do you mean modality"):
        row_from(content, "row")


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "", "name: 2001-01-01\n"])
def test_a_file_that_is_no_row_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"mine\.yaml"):
        read_row(path)


def test_a_name_that_is_none_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do you mean ours-2"):
        find_row("our-2")
    with pytest.raises(InputError, match="cannot be read"):
        find_row(str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match="no table '3'"):
        rows_of_table("3")


def test_a_row_of_ones_own_is_found_by_its_path(tmp_path: Path) -> None:
    row = find_row(str(write_row(tmp_path / "mine.yaml", registration_content())))
    assert isinstance(row, Row)
    assert row.name == "tiny"
    assert row.method.options == {"integration_steps": 2}  # type: ignore[union-attr]

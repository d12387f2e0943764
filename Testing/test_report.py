"""The report: what it says, what it shows, and that it needs nothing but itself."""

from __future__ import annotations

import base64
import html
import io
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from report_fixtures import GOOD, LANDMARKS, TRUS_GRID, landmark, measures, registration
from shapes import ellipsoid, points_mm, turned

from MRTRUSRegistrationLib import plain_language
from MRTRUSRegistrationLib.confidence import ConfidenceMap
from MRTRUSRegistrationLib.geometry import Grid, orientation_direction
from MRTRUSRegistrationLib.indicator import registration_indicator
from MRTRUSRegistrationLib.plain_language import Thresholds, lesion_hit_percent, measure_rows
from MRTRUSRegistrationLib.report import report_html, write_report
from MRTRUSRegistrationLib.report_pictures import (
    PIXEL_MM,
    contour_path,
    displacement_mm,
    display_axes,
    gland_planes,
    jacobian_slice,
    report_pictures,
    slice_image,
    tilt_deg,
)
from MRTRUSRegistrationLib.results import (
    Deformation,
    GlandSegmentation,
    Measures,
    QualityWarning,
    Registration,
)
from MRTRUSRegistrationLib.targets import TargetRow
from MRTRUSRegistrationLib.transforms import field_transform

VOID = {"meta", "img", "br", "input", "link", "hr", "path"}


@dataclass
class Page(HTMLParser):
    """Elements, attributes and text of a page; fails on tags that do not nest."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""
    stack: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    @classmethod
    def of(cls, source: str) -> Page:
        page = cls()
        page.feed(source)
        page.close()
        assert page.stack == []
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack[-1:] != ["style"]:
            self.text += " " + " ".join(data.split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page() -> Page:
    rows = landmark("Urethra", 8.3, 4.2, 1.9), landmark("Cyst <b>&", 6.0, 3.5, 5.1)
    result = registration(
        measures=measures(*rows, **LANDMARKS),
        initial_measures=measures(dsc=0.61, tre_mean_mm=7.15, landmarks=2),
        rigid_measures=measures(dsc=0.84, tre_mean_mm=3.85, landmarks=2),
        warnings=(QualityWarning("odd_header", "The header <looks> odd."),),
    )
    return Page.of(report_html(result, case_name="Case <script>alert(1)</script> & Co"))


def pixels(uri: str) -> np.ndarray:
    """(row, column, channel) values of a PNG data URI."""
    from PIL import Image

    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)
    return np.asarray(Image.open(io.BytesIO(data)))


def final_column(result_html: str, key: str) -> str:
    row = re.search(rf'<tr id="measure-{key}">(.*?)</tr>', result_html, re.DOTALL)
    assert row is not None
    cell = re.search(r'data-of="final">([^<]*)<', row[1])
    assert cell is not None
    return html.unescape(cell[1])


# The page


def test_the_page_needs_nothing_else(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "script")
        for name in ("src", "href", "srcset", "data"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "url(" not in report_html(registration(deformed=False), case_name="a")


def test_every_picture_has_three_planes_with_an_alternative_text(page: Page) -> None:
    texts = [image["alt"] for image in page.all("img") if image["alt"]]
    subjects = ("MR, before", "MR, rigid", "MR, deformable", "TRUS with", "Registered MR", "Checkerboard")
    for subject in (*subjects, "Map of the displacement", "Map of the Jacobian"):
        planes = [text.split("; ")[1].split()[0] for text in texts if text and text.startswith(subject)]
        assert planes == ["axial", "sagittal", "coronal"], subject
    assert all("alt" in image for image in page.all("img"))


def test_layers_cover_the_same_rectangle() -> None:
    pictures = report_pictures(registration())
    rows = (*pictures.stages, pictures.trus, pictures.fusion, pictures.checkerboard)
    for picture in (picture for row in rows for picture in row.pictures):
        for layer in picture.layers:
            assert pixels(layer).shape[:2] == (picture.height_px, picture.width_px)
    for row in (pictures.displacement, pictures.jacobian):
        assert row is not None
        for picture in row.pictures:
            extent_mm = np.array([picture.height_px, picture.width_px]) * PIXEL_MM
            assert pixels(picture.layers[1]).shape[:2] == pytest.approx(extent_mm, abs=0.5)


def test_names_and_messages_are_escaped(page: Page) -> None:
    assert "Case <script>alert(1)</script> & Co" in page.text
    assert "Cyst <b>&" in page.text
    assert "The header <looks> odd." in page.text
    assert not page.all("script")
    assert not page.all("looks")


def test_the_page_says_research_use_only(page: Page) -> None:
    assert "Research use only: not a medical device" in page.text


def test_warnings_and_provenance_are_listed(page: Page) -> None:
    for text in ("odd_header", "0123456789abcdef", "rigid.metric", "meansquares", "2026-01-02", "4.5 s"):
        assert text in page.text


def test_landmark_errors_are_printed_per_stage(page: Page) -> None:
    lines = " ".join(page.text.split())
    assert "Urethra 8.3 4.2 1.9" in lines
    assert "Cyst <b>& 6.0 3.5 5.1 worse than rigid" in lines


def test_printed_measures_equal_the_measures() -> None:
    values = LANDMARKS | {
        "folds_percent": 0.0,
        "gland_volume_change_percent": -6.36,
        "displacement_p95_mm": 4.04,
        "jacobian_min": 0.72,
        "odd_figure": 0.123456,
    }
    source = report_html(registration(measures=measures(landmark("a", 1, 1, 1), **values)), case_name="a")
    shown = {
        "dsc": "0.91",
        "hd95_mm": "3.2 mm",
        "msd_mm": "0.9 mm",
        "tre_mean_mm": "2.0 mm",
        "tre_rms_mm": "2.3 mm",
        "folds_percent": "0.00 %",
        "gland_volume_change_percent": "-6.4 %",
        "displacement_p95_mm": "4.0 mm",
        "jacobian_min": "0.72",
    }
    assert {key: final_column(source, key) for key in shown} == shown
    assert "odd_figure" in source
    assert "0.1235" in source


@pytest.mark.slow
def test_the_same_result_gives_the_same_page() -> None:
    result = registration()
    assert report_html(result, case_name="a") == report_html(result, case_name="a")


def test_a_rigid_result_has_no_maps_and_says_so() -> None:
    page = Page.of(report_html(registration(deformed=False), case_name="a"))
    assert "No deformable step was run" in page.text
    assert not [image for image in page.all("img") if (image["alt"] or "").startswith(("Map", "MR, deform"))]


@pytest.mark.parametrize(
    ("method", "titles"), [("initial", ["Before"]), ("centroid", ["Before", "Centres matched"])]
)
def test_a_step_that_was_not_run_is_not_shown(method: str, titles: list[str]) -> None:
    result = registration(deformed=False)
    result = replace(result, rigid=replace(result.rigid, method=method))
    assert [row.title for row in report_pictures(result).stages] == titles


def test_a_case_without_figures_is_reported(tmp_path: Path) -> None:
    empty = Measures()
    result = registration(
        measures=empty, initial_measures=empty, rigid_measures=empty, provenance={}, timings_s={}
    )
    write_report(result, tmp_path / "report.html", case_name="Ünïcode")
    assert "Ünïcode" in Page.of((tmp_path / "report.html").read_text(encoding="utf-8")).text


def test_mr_far_from_trus_is_reported() -> None:
    away = sitk.TranslationTransform(3, (500.0, 0.0, 0.0))
    page = Page.of(report_html(registration(deformed=False, initial=away, transform=away), case_name="a"))
    assert page.all("img")


def test_a_gland_at_the_border_and_a_flat_image_are_reported() -> None:
    corner = tuple(float(x) for x in (TRUS_GRID.index_to_point @ [0, 20, 16, 1])[:3])
    mask = ellipsoid(TRUS_GRID, (20, 20, 20), centre_mm=corner)
    result = registration(trus_gland=GlandSegmentation(mask), trus=TRUS_GRID.blank(sitk.sitkInt16))
    pictures = report_pictures(result)
    assert all(picture.contours for picture in pictures.trus.pictures)


@pytest.mark.slow
def test_a_large_report_takes_less_than_its_time() -> None:
    result = registration()
    grid = Grid.centred(TRUS_GRID.centre_mm, (81, 118, 88), (0.8,) * 3, TRUS_GRID.direction)
    mask = ellipsoid(grid, (24, 18, 20), centre_mm=tuple(grid.centre_mm.tolist()))
    result = replace(result, trus=grid.image(np.random.default_rng(0).random((88, 118, 81))))
    start = time.process_time()
    text = report_html(replace(result, trus_gland=GlandSegmentation(mask)), case_name="a")
    assert time.process_time() - start < 3
    assert len(text) < 4_000_000


# The judgement and the readings


def level(key: str, value: float) -> str:
    """How the table of measures judges a final figure."""
    changed = measures(**({"landmarks": 3.0, "tre_mean_mm": 1.0} | {key: value}))
    return next(row.level for row in measure_rows(registration(measures=changed)) if row.key == key)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("tre_mean_mm", 2.8, "good"),
        ("tre_mean_mm", 2.9, "check"),
        ("tre_mean_mm", 5.0, "poor"),
        ("dsc", 0.85, "good"),
        ("dsc", 0.84, "check"),
        ("dsc", 0.74, "poor"),
        ("hd95_mm", 4.0, "good"),
        ("hd95_mm", 4.1, "check"),
        ("hd95_mm", 8.1, "poor"),
        ("msd_mm", 2.0, "good"),
        ("msd_mm", 2.1, "check"),
        ("msd_mm", 4.1, "poor"),
        ("folds_percent", 0.0, "good"),
        ("folds_percent", 0.01, "check"),
        ("folds_percent", 1.1, "poor"),
        ("gland_volume_change_percent", -20.0, "good"),
        ("gland_volume_change_percent", -21.0, "check"),
        ("gland_volume_change_percent", 41.0, "poor"),
        ("displacement_p95_mm", 5.0, "good"),
        ("displacement_p95_mm", 5.1, "check"),
        ("displacement_p95_mm", 10.1, "poor"),
    ],
)
def test_each_threshold_changes_the_level(key: str, value: float, expected: str) -> None:
    assert level(key, value) == expected


@pytest.mark.parametrize(
    ("value", "reading"),
    [(0.5, "takes 2.0 times its volume"), (1.0, "Nowhere in the gland"), (-0.1, "folds")],
)
def test_the_smallest_volume_ratio_is_read_as_a_stretch(value: float, reading: str) -> None:
    rows = {row.key: row for row in measure_rows(registration(measures=measures(jacobian_min=value)))}
    assert reading in rows["jacobian_min"].reading


def test_thresholds_can_be_given() -> None:
    strict = Thresholds(dsc=plain_language.Limits(0.95, 0.92))
    rows = {row.key: row for row in measure_rows(registration(), thresholds=strict)}
    assert rows["dsc"].level == "poor"


def judgement(result: Registration, confidence: ConfidenceMap | None = None) -> tuple[str, str, str]:
    """Level, headline and first reason as they stand at the top of the page."""
    source = report_html(result, case_name="a", confidence=confidence)
    found = re.search(
        r'<section class="verdict (\w+)".*?<h2>(.*?)</h2>.*?<li>.*?<span>(.*?)</span></li>', source, re.S
    )
    assert found is not None
    assert source.index("<section") < source.index("<figure")
    return found[1], html.unescape(found[2]), re.sub(r"<.*?>", "", found[3])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"measures": measures(**LANDMARKS)},
        {"measures": measures(dsc=0.8)},
        {"measures": measures(landmarks=3, landmarks_lost=3)},
        {"measures": measures(landmarks=2, tre_mean_mm=2.5), "rigid_measures": measures(tre_mean_mm=2.1)},
        {"measures": Measures()},
        {"warnings": (QualityWarning("a", "The rotation was limited."),)},
    ],
)
def test_the_page_and_the_indicator_say_the_same(changes: dict[str, object]) -> None:
    result = registration(**changes)
    expected = registration_indicator(result)
    assert judgement(result) == (expected.level, expected.headline, expected.reasons[0])


@pytest.mark.slow
def test_the_confidence_map_counts_for_the_page() -> None:
    unsure = ConfidenceMap(TRUS_GRID.blank(sitk.sitkFloat32), 6.0, 9.0, 5.0, 6, 0)
    level, headline, reason = judgement(registration(), unsure)
    assert level == "poor"
    assert headline == "Poor: do not rely on this alignment."
    assert "hardly determine the result" in reason
    assert judgement(registration())[0] == "good"


def test_without_landmarks_no_accuracy_is_claimed() -> None:
    text = Page.of(report_html(registration(), case_name="a")).text
    assert "accuracy inside the gland was not measured" in text
    assert "Overlap is not accuracy inside the gland" in text
    assert "landmarks_lost" not in {row.key for row in measure_rows(registration())}


def test_a_warning_is_listed_once_with_its_name() -> None:
    warning = QualityWarning("rotation_limited", "The rotation was limited.")
    source = report_html(registration(warnings=(warning, warning)), case_name="a")
    assert source.count("<code>rotation_limited</code>") == 1
    assert "1 warning by name" in source


def test_lost_landmarks_are_named() -> None:
    lost = registration(measures=measures(landmark("Far", 5, 5, None), landmarks=1, landmarks_lost=1))
    assert "lost: carried far out of the TRUS image" in Page.of(report_html(lost, case_name="a")).text


def target(name: str, **changes: object) -> TargetRow:
    row = TargetRow(
        name, (1.0, 2.0, 3.0), (-12.34, 5.0, -0.04), 7.25, 0.5, "mid", "left", mr_ml=0.5, trus_ml=0.46
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def test_targets_are_listed_with_place_capsule_and_both_frames() -> None:
    outside = QualityWarning("target_outside_gland", "The target B <b> lies outside.")
    rows = (
        target("A"),
        target("B <b>", capsule_mm=-1.5, spread_mm=2.04, mr_ml=None, trus_ml=None, warnings=(outside,)),
    )
    page = Page.of(report_html(registration(), case_name="a", targets=rows))
    lines = " ".join(page.text.split())
    first = "A mid, left 7.2 mm inside 50 % 0.50 → 0.46 – LPS -12.3, 5.0, 0.0 RAS 12.3, -5.0, 0.0"
    assert first in lines
    assert "B <b> mid, left 1.5 mm outside 50 % – 2.0 LPS" in lines
    assert "! check The target B <b> lies outside." in lines


_BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(_BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("width_px", [960, 640])
def test_the_table_of_targets_fits_the_page(width_px: int, tmp_path: Path) -> None:
    """Nothing of it is cut off, even with the longest figures that a patient's frame gives."""
    rows = (target("Lesion (left, PI-RADS 5)", trus_mm=(-112.34, -105.0, -100.04), capsule_mm=-11.5),)
    source = report_html(registration(), case_name="a", targets=rows)
    script = "const e = document.querySelector('.targets').parentElement;"
    script += "document.title = `${e.scrollWidth} of ${e.clientWidth}`;"
    page_file = tmp_path / "page.html"
    page_file.write_text(source.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    # In a container the administrator runs it, for whom its sandbox does not work.
    command = [str(_BROWSER), "--no-sandbox", "--headless", "--disable-gpu", f"--window-size={width_px},900"]
    command += ["--dump-dom", page_file.as_uri()]
    shown = subprocess.run(command, check=True, capture_output=True, timeout=120, text=True).stdout
    found = re.search(r"<title>(\d+) of (\d+)</title>", shown)
    assert found is not None
    assert int(found[1]) == int(found[2]) > 0.8 * width_px


def test_without_targets_there_is_no_table_of_them() -> None:
    assert "Targets on the TRUS" not in Page.of(report_html(registration(), case_name="a")).text


@pytest.mark.parametrize(
    ("mean_mm", "percent"), [(2.0, 99.9), (2.8, 95.1), (3.72, 78.4), (4.65, 58.5), (5.49, 43.8)]
)
def test_hit_rate_equals_a_simulation(mean_mm: float, percent: float) -> None:
    assert lesion_hit_percent(mean_mm) == pytest.approx(percent, abs=0.15)
    errors = np.random.default_rng(1).normal(size=(200_000, 3))
    lengths = np.linalg.norm(errors, axis=1)
    hits = lengths * mean_mm / lengths.mean() < (3 * 500 / (4 * np.pi)) ** (1 / 3)
    assert 100 * hits.mean() == pytest.approx(lesion_hit_percent(mean_mm), abs=0.5)


# The pictures


def block_case(
    code: str, block_mm: tuple[float, float, float], *, turn: float = 0.0
) -> tuple[sitk.Image, GlandSegmentation]:
    """A gland at the origin and a bright block beside it, in an image with the given axes."""
    axes = np.reshape(turned(turn, turn, turn), (3, 3)) @ np.reshape(orientation_direction(code), (3, 3))
    grid = Grid.centred(np.zeros(3), (40, 44, 48), (1.5, 1.6, 1.4), tuple(axes.ravel().tolist()))
    return ellipsoid(grid, (5, 5, 5), centre_mm=block_mm), GlandSegmentation(ellipsoid(grid, (14, 12, 13)))


@pytest.mark.parametrize("code", ["LPS", "RAS", "PRS", "SLP", "IAR", "PSL"])
@pytest.mark.parametrize("turn", [0.0, 0.2])
@pytest.mark.parametrize(
    ("block_mm", "bright"),
    [
        # Where the block must be seen: (plane, row side, column side), -1 up or left, 1 down or right.
        ((18, 0, 0), {"axial": (0, 1), "coronal": (0, 1)}),
        ((0, 18, 0), {"axial": (1, 0), "sagittal": (0, 1)}),
        ((0, 0, 18), {"sagittal": (-1, 0), "coronal": (-1, 0)}),
    ],
)
def test_slices_lie_as_radiologists_show_them(
    code: str, turn: float, block_mm: tuple[float, float, float], bright: dict[str, tuple[int, int]]
) -> None:
    turned_block = np.reshape(turned(turn, turn, turn), (3, 3)) @ block_mm
    image, gland = block_case(code, tuple(turned_block.tolist()), turn=turn)
    planes = {plane.name: plane for plane in gland_planes(image, gland)}
    for name, sides in bright.items():
        values = np.nan_to_num(slice_image(image, planes[name]))
        seen = np.argwhere(values > 0.5).mean(axis=0) - (np.array(values.shape) - 1) / 2
        assert seen * PIXEL_MM == pytest.approx(18 * np.array(sides), abs=0.8)


def test_markers_stand_where_the_patient_is() -> None:
    planes = gland_planes(*block_case("PRS", (0, 0, 0)))
    assert [plane.markers for plane in planes] == [
        ("R", "L", "A", "P"),
        ("A", "P", "S", "I"),
        ("R", "L", "S", "I"),
    ]


def test_stated_axes_beat_the_header() -> None:
    # The header says LPS; in truth the first index runs to the back, the second to the right.
    image, gland = block_case("LPS", (18, 0, 0))
    axial = gland_planes(image, replace(gland, axes="PRS"))[0]
    seen = np.argwhere(np.nan_to_num(slice_image(image, axial)) > 0.5).mean(axis=0)
    assert seen[0] > axial.shape[0] * 0.7
    assert seen[1] == pytest.approx(axial.shape[1] / 2, abs=2)
    columns = display_axes(image, "PRS")
    assert columns[:, 0] == pytest.approx([0, -1, 0])
    assert columns[:, 1] == pytest.approx([1, 0, 0])


@pytest.mark.slow
def test_assumed_axes_are_told_to_the_reader() -> None:
    result = registration()
    told = "make sure that right and left are not exchanged"
    assert told not in report_html(result, case_name="a")
    assumed = replace(result, trus_gland=replace(result.trus_gland, axes="PRS"))
    assert told in report_html(assumed, case_name="a")


def test_tilt_is_the_angle_of_the_axes() -> None:
    grid = Grid.centred(np.zeros(3), (9, 9, 9), (1, 1, 1), turned(np.radians(12), 0, 0))
    assert tilt_deg(grid.blank(), GlandSegmentation(grid.blank())) == pytest.approx(12)


def test_slices_keep_true_proportions() -> None:
    grid = Grid((60, 60, 24), (1.0, 1.0, 3.0), (-30.0, -30.0, -36.0))
    gland = GlandSegmentation(ellipsoid(grid, (20, 14, 17)))
    sizes = [np.array(plane.shape) * PIXEL_MM - 30 for plane in gland_planes(grid.blank(), gland)]
    assert np.array(sizes) == pytest.approx(np.array([(28, 40), (30, 28), (30, 40)]), abs=1)


def test_slices_are_not_a_number_outside_the_image() -> None:
    image, gland = block_case("LPS", (18, 0, 0))
    away = sitk.TranslationTransform(3, (500.0, 0.0, 0.0))
    axial = gland_planes(image, gland)[0]
    assert np.isnan(slice_image(image, axial, away)).all()
    assert np.isfinite(slice_image(image, axial)).any()


def test_a_slice_under_a_transform_shows_what_lies_there() -> None:
    image, gland = block_case("LPS", (18, 0, 0))
    shift = sitk.TranslationTransform(3, (4.0, 0.0, 0.0))
    axial = gland_planes(image, gland)[0]
    still, moved = (
        np.argwhere(np.nan_to_num(slice_image(image, axial, transform)) > 0.5).mean(axis=0)
        for transform in (None, shift)
    )
    assert (moved - still) * PIXEL_MM == pytest.approx([0, -4], abs=0.1)


def test_a_contour_lies_on_the_half_level() -> None:
    rows, columns = np.indices((60, 80))
    soft = (10.5 - np.hypot(rows - 30, columns - 40)).clip(0, 1)
    path = contour_path(soft)
    points = np.array([pair.split(",") for pair in re.findall(r"[\d.]+,[\d.]+", path)], float)
    # A pixel's middle lies half a pixel from its edge.
    assert np.hypot(points[:, 0] - 40.5, points[:, 1] - 30.5) == pytest.approx(
        np.full(len(points), 10), abs=0.2
    )
    assert path.endswith("Z")
    assert contour_path(np.zeros((5, 5))) == ""


def test_maps_show_the_fields_own_numbers() -> None:
    # u = (0.1 x, 0, 0): the determinant is 1.1 and the displacement 0.1 |x|.
    grid = Grid((50, 50, 50), (2.0,) * 3, (-49.0,) * 3)
    field_mm = points_mm(grid) * np.array([0.1, 0, 0])
    deformation = Deformation(field_transform(field_mm, grid), "test")
    for plane in gland_planes(grid.blank(), GlandSegmentation(ellipsoid(grid, (15, 15, 15)))):
        assert jacobian_slice(deformation, plane) == pytest.approx(np.full(plane.shape, 1.1), abs=1e-6)
        rows, columns = np.indices(plane.shape)
        index = np.stack([columns, rows, 0 * rows, 1 + 0 * rows], axis=-1)
        x_mm = (index @ plane.grid.index_to_point.T)[..., 0]
        assert displacement_mm(deformation, plane) == pytest.approx(0.1 * np.abs(x_mm), abs=1e-6)


def test_the_colours_of_local_volume_suit_the_gland_not_its_surroundings() -> None:
    # A gentle stretch within the gland and a steep one at the image's left border.
    grid = TRUS_GRID
    x_mm = ((points_mm(grid) - grid.centre_mm) @ grid.axes)[..., :1]
    along_x = np.where(x_mm < -26, 0.8 * (x_mm + 26), 0) + 0.03 * x_mm
    deformation = Deformation(field_transform(along_x * grid.axes[:, 0], grid), "test")
    row = report_pictures(registration(deformation=deformation)).jacobian
    assert row is not None
    assert row.bar is not None
    assert [text for _, text in row.bar.ticks] == ["≤ 0.8", "0.9", "1", "1.1", "≥ 1.2"]


@pytest.mark.slow
def test_folds_are_magenta() -> None:
    grid = Grid.of(registration().trus)
    local = (points_mm(grid) - grid.centre_mm) @ grid.axes
    near = np.exp(-0.5 * (local**2).sum(axis=-1) / 64)[..., None]
    folding = field_transform(near * local[..., :1] * -2.5 * grid.axes[:, 0], grid)
    result = registration()
    folded = replace(result, deformation=Deformation(folding, "test"))
    for case, expected in ((result, False), (folded, True)):
        row = report_pictures(case).jacobian
        assert row is not None
        magenta = (pixels(row.pictures[0].layers[1]) == (255, 0, 255, 255)).all(axis=-1)
        assert bool(magenta.any()) is expected


def test_the_good_figures_of_the_fixture_are_good() -> None:
    assert {row.level for row in measure_rows(registration()) if row.key in GOOD} == {"good"}

"""The viewer in a real Chromium: review, correct, export, bad files, two visitors at once."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from viewer_browser import ARGUMENTS, Visitor, chromium_path, difference, pixels, served

pytest.importorskip("trame_slicer", reason="the extra `web` is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium_path() is None, reason="no Chromium is installed (Debian: chromium)"),
]

REFERENCES = Path(__file__).parent / "references"
# Grey levels of 255. A view that is drawn anew may differ by the noise of its JPEG.
SAME, OTHER = 1.0, 4.0


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mrml_case import write_folder

    from MRTRUSRegistrationLib.landmark_files import NamedPoints, write_points
    from MRTRUSRegistrationLib.target_files import POINTS

    registration, folder = write_folder(tmp_path_factory.mktemp("viewer") / "Case 7")
    target = NamedPoints(("lesion",), registration.trus_landmarks.points_mm[:1])
    write_points(target, folder / POINTS)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=chromium_path(), args=list(ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(result: Path) -> Iterator[str]:
    with served(result) as url:
        yield url


@pytest.fixture(scope="module")
def tab(browser, address: str) -> Iterator[Visitor]:
    """One tab for the tests that only look; each puts back what it changed."""
    visitor = Visitor.open(browser, address)
    visitor.settle()
    yield visitor
    visitor.close()
    assert visitor.problems == []


def test_the_first_picture_shows_the_fused_images(tab: Visitor) -> None:
    assert tab.get("has_case")
    assert tab.get("stages") == ["before", "rigid", "deformable"]
    for number in range(4):
        assert tab.view(number).std() > 10
    small = pixels(tab.page.screenshot())[::8, ::8]
    assert small.shape == (100, 160, 3)
    reference = REFERENCES / "viewer_page.png"
    assert difference(small, pixels(reference.read_bytes())) < 8


def test_stages_differ_and_come_back(tab: Visitor) -> None:
    deformable = tab.view()
    tab.page.get_by_role("button", name="Before").click()
    tab.settle()
    before = tab.view()
    tab.page.keyboard.press("2")
    tab.wait("state.review_stage === 'rigid'")
    tab.settle()
    rigid = tab.view()
    tab.page.keyboard.press("3")
    tab.settle()
    assert difference(before, deformable) > OTHER
    assert difference(rigid, before) > OTHER
    assert difference(tab.view(), deformable) < SAME


def test_blending_goes_from_one_image_to_the_other(tab: Visitor) -> None:
    pictures = []
    for opacity in (0.0, 0.5, 1.0):
        tab.set(review_opacity=opacity)
        pictures.append(tab.view())
    tab.set(review_opacity=0.5)
    trus, half, mr = pictures
    # Outlines and titles are the same in all three.
    assert difference(half, (trus + mr) / 2) < 2.5
    assert difference(trus, mr) > 2 * OTHER
    assert difference(tab.view(), half) < SAME


@pytest.mark.parametrize(
    "change",
    [
        {"review_mode": "checkerboard"},
        {"review_mode": "split"},
        {"review_overlay": "displacement"},
        {"review_overlay": "jacobian"},
        {"review_deformation": "grid"},
        {"review_deformation": "arrows"},
        {"review_contours": False},
    ],
    ids=lambda change: "-".join(str(part) for pair in change.items() for part in pair),
)
def test_every_way_to_look_changes_the_picture(tab: Visitor, change: dict[str, object]) -> None:
    before, kept = tab.view(), {name: tab.get(name) for name in change}
    tab.set(**change)
    assert difference(tab.view(), before) > 0.2
    tab.set(**kept)
    assert difference(tab.view(), before) < SAME


def test_error_arrows_are_drawn_where_there_are_errors(tab: Visitor) -> None:
    tab.set(review_stage="before")
    before = tab.view()
    tab.page.keyboard.press("v")
    tab.settle()
    assert difference(tab.view(), before) > 0.2
    tab.set(review_vectors=False, review_stage="deformable")


def test_no_path_of_the_server_is_on_the_page(tab: Visitor, result: Path) -> None:
    state = tab.page.evaluate("JSON.stringify(window.trame.state.state)")
    for text in (state, tab.page.content()):
        assert str(result.parent) not in text
        assert "mrtrus-view-" not in text


def test_shift_and_move_takes_the_other_views_along(tab: Visitor) -> None:
    before = tab.get("slice_coronal_value")
    box = tab.page.locator(".layout-grid-item img").first.bounding_box()
    tab.page.keyboard.down("Shift")
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.4 * box["height"])
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.3 * box["height"], steps=5)
    tab.page.keyboard.up("Shift")
    tab.settle()
    assert abs(tab.get("slice_coronal_value") - before) > 1


def test_flicker_shows_both_images_in_turn(tab: Visitor) -> None:
    tab.page.keyboard.press("f")
    seen = []
    for _ in range(14):
        tab.page.wait_for_timeout(150)
        seen.append(tab.view())
    tab.page.keyboard.press("b")
    tab.settle()
    assert max(difference(seen[0], other) for other in seen) > OTHER


def test_sliders_build_no_queue(tab: Visitor) -> None:
    tab.page.evaluate(
        """async () => {
            for (let n = 0; n <= 60; n++) {
                window.trame.state.set("review_opacity", n / 60);
                await new Promise((resolve) => setTimeout(resolve, 15));
            }
        }"""
    )
    tab.settle()
    swept = tab.view()
    tab.set(review_opacity=0.5)
    tab.set(review_opacity=1.0)
    assert difference(tab.view(), swept) < SAME
    tab.set(review_opacity=0.5)


def test_a_click_on_a_landmark_goes_there(tab: Visitor) -> None:
    tab.open_panels("trust")
    rows = tab.get("landmark_rows")
    assert rows[-1]["name"] == "TRE (RMS)"
    # The known answer is exact: the deformable stage puts every landmark where it belongs.
    assert float(rows[-1]["deformable"]) < 0.2 < float(rows[-1]["before"])
    names = ("slice_axial_value", "slice_sagittal_value", "slice_coronal_value")
    places = []
    for row in rows[:2]:
        tab.page.locator(".landmark_rows tr", has_text=row["name"]).click()
        tab.settle()
        places.append([tab.get(name) for name in names])
    assert np.abs(np.subtract(*places)).min() > 0.1


def test_trust_is_said_in_words(tab: Visitor) -> None:
    tab.open_panels("trust")
    assert tab.get("indicator")["headline"] in tab.page.locator(".indicator").inner_text()
    assert len(tab.get("measure_rows")) >= 3


def test_one_view_large_and_all_again(tab: Visitor) -> None:
    small = tab.page.locator(".layout-grid-item img").count()
    assert small == 4
    tab.page.get_by_label("Show coronal large, or all views").click()
    tab.page.wait_for_function("() => document.querySelectorAll('.layout-grid-item img').length === 1")
    assert tab.page.locator(".layout-grid-item").first.bounding_box()["height"] > 600
    tab.page.get_by_label("Show coronal large, or all views").click()
    tab.page.wait_for_function("() => document.querySelectorAll('.layout-grid-item img').length === 4")
    tab.settle()


def test_the_page_is_light_or_dark_and_says_that_it_is_for_research(tab: Visitor) -> None:
    tab.open_panels("review")
    panel = tab.page.locator(".v-navigation-drawer")
    dark = pixels(panel.screenshot()).mean()
    tab.page.keyboard.press("t")
    tab.settle()
    assert pixels(panel.screenshot()).mean() > dark + 100
    tab.page.keyboard.press("t")
    assert "not a medical device" in tab.page.locator(".bar-notice").inner_text()


@pytest.mark.parametrize("size", [(1024, 768), (820, 1180)], ids=["landscape", "portrait"])
def test_a_tablet_shows_views_and_stages(browser, address: str, size: tuple[int, int]) -> None:
    visitor = Visitor.open(browser, address, {"width": size[0], "height": size[1]})
    visitor.settle()
    assert visitor.page.get_by_role("button", name="Deformable").is_visible()
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert visitor.view().shape[1] > 300
    visitor.close()


def test_a_painted_gland_is_noticed_and_registered_again(browser, address: str) -> None:
    visitor = Visitor.open(browser, address)
    visitor.open_panels("correct")
    visitor.page.locator(".edit-trus").click()
    visitor.wait("state.editing === 'trus'")
    visitor.settle()
    before = visitor.view()
    visitor.stroke((0.3, 0.25), (0.5, 0.2))
    assert difference(visitor.view(), before) > 0.05
    visitor.page.locator(".done-button").click()
    visitor.wait("state.editing === '' && state.edited.length === 1")
    assert visitor.get("edited") == ["TRUS"]
    visitor.set(method="centroid")
    visitor.page.locator(".again-button").click()
    visitor.wait("state.running")
    visitor.wait("!state.running")
    visitor.wait("state.version === 2")
    assert visitor.get("edited") == []
    assert visitor.get("stages") == ["before", "rigid"]
    assert len(visitor.get("versions")) == 2
    visitor.set(version=1)
    visitor.wait("state.stages.length === 3")
    assert visitor.problems == []
    visitor.close()


def test_a_target_is_moved_and_put_back(browser, address: str) -> None:
    visitor = Visitor.open(browser, address)
    visitor.open_panels("trust", "correct")
    [target] = visitor.get("target_rows")
    assert target["name"] == "lesion"
    assert not target["moved"]
    visitor.set(move_targets=True)
    # Its row takes it to the middle of the views.
    visitor.page.locator(".target_rows tr", has_text="lesion").click()
    visitor.settle()
    visitor.stroke((0.5, 0.5), (0.6, 0.5))
    visitor.wait("state.target_rows[0].moved !== ''")
    assert float(visitor.get("target_rows")[0]["moved"]) > 2
    visitor.page.locator(".put-back").click()
    visitor.wait("state.target_rows[0].moved === ''")
    assert visitor.problems == []
    visitor.close()


def test_a_run_is_cancelled_and_changes_nothing(browser, address: str) -> None:
    visitor = Visitor.open(browser, address)
    visitor.settle()
    before = visitor.view()
    visitor.open_panels("correct", "register")
    visitor.page.locator(".again-button").click()
    visitor.wait("state.running")
    visitor.page.locator(".cancel-button").click()
    visitor.wait("!state.running")
    assert "Cancelled" in visitor.get("progress_text")
    assert len(visitor.get("versions")) == 1
    assert difference(visitor.view(), before) < SAME
    visitor.close()


def test_downloads_are_what_they_say(tab: Visitor, tmp_path: Path) -> None:
    from MRTRUSRegistrationLib.mrml.case_nodes import find_cases
    from MRTRUSRegistrationLib.mrml.scene_file import read_scene

    tab.open_panels("export")
    saved = {}
    for title in ("Slicer scene", "Transforms", "Registered MR"):
        with tab.page.expect_download() as download:
            tab.page.locator(".export-button", has_text=title).click()
        saved[title] = tmp_path / download.value.suggested_filename
        download.value.save_as(saved[title])
    scene = read_scene(saved["Slicer scene"])
    assert find_cases(scene)[0].deformation is not None
    with zipfile.ZipFile(saved["Transforms"]) as archive:
        assert set(archive.namelist()) == {"mr_to_trus.h5", "rigid.h5", "mr_to_trus_grid.nrrd"}
    assert saved["Registered MR"].name == "registered_mr.nii.gz"


def test_a_scene_is_uploaded_and_so_is_one_that_the_viewer_saved(
    browser, address: str, result: Path, tmp_path: Path
) -> None:
    visitor = Visitor.open(browser, address)
    visitor.open_panels("case", "export")
    with visitor.page.expect_download() as download:
        visitor.page.locator(".export-button", has_text="Slicer scene").click()
    download.value.save_as(tmp_path / "saved.mrb")
    # The scene of a result folder has no targets yet, the one that the viewer saved has.
    for path, targets in ((result / "scene.mrb", 0), (tmp_path / "saved.mrb", 1)):
        visitor.page.locator("input[data-role=scene]").set_input_files(path)
        visitor.wait(f"state.target_rows.length === {targets}")
        visitor.settle()
        assert visitor.get("stages") == ["before", "rigid", "deformable"]
        assert visitor.view().std() > 10
    assert visitor.problems == []
    visitor.close()


def test_a_bad_file_is_one_sentence_without_a_path(browser, address: str, tmp_path: Path) -> None:
    bad = tmp_path / "not a volume.nii.gz"
    bad.write_bytes(b"nothing of the kind")
    visitor = Visitor.open(browser, address)
    visitor.settle()
    before = visitor.view()
    visitor.open_panels("case")
    for role in ("mr", "trus"):
        visitor.page.locator(f"input[data-role={role}]").set_input_files(bad)
        visitor.wait(f"state.upload_{role} === 'not a volume.nii.gz'")
    visitor.page.get_by_text("Load MR and TRUS").click()
    visitor.wait("state.error_shown")
    text = visitor.page.locator(".error-text").inner_text()
    assert text.startswith("not a volume.nii.gz")
    assert not re.search(r"/\w+/", text)
    visitor.page.get_by_role("button", name="Close").click()
    visitor.page.locator(".error-dialog").wait_for(state="hidden")
    visitor.settle()
    assert visitor.get("has_case")
    assert difference(visitor.view(), before) < SAME
    visitor.page.locator("input[data-role=scene]").set_input_files(bad)
    visitor.wait("state.error_shown")
    assert "not a Slicer scene" in visitor.page.locator(".error-text").inner_text()
    visitor.close()


def test_two_visitors_do_not_see_each_other(browser, address: str) -> None:
    first, second = (Visitor.open(browser, address) for _ in range(2))
    assert first.page.url != second.page.url
    second.settle()
    untouched = second.view()
    first.set(review_stage="before", review_mode="checkerboard")
    second.settle()
    assert second.get("review_stage") == "deformable"
    assert difference(second.view(), untouched) < SAME
    first.close()
    second.set(review_mode="checkerboard")
    assert difference(second.view(), untouched) > OTHER
    second.close()


def test_a_pair_given_on_the_command_line_waits_to_be_registered(browser, case_files) -> None:
    with served(case_files.mr, case_files.trus) as address:
        visitor = Visitor.open(browser, address)
        visitor.settle()
        assert visitor.get("has_pair")
        assert not visitor.get("has_case")
        trus = visitor.view()
        visitor.set(pair_shown="mr")
        assert difference(visitor.view(), trus) > OTHER
        visitor.page.locator(".register-button").wait_for()
        assert visitor.page.locator(".register-button").is_enabled()
        visitor.close()


def test_files_are_chosen_in_the_served_folder(browser, result: Path, case_files, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    shutil.copytree(result, folder / "Case 7")
    for path in (case_files.mr, case_files.trus):
        shutil.copy(path, folder)
    with served(folder) as address:
        visitor = Visitor.open(browser, address)
        assert visitor.get("served_results") == ["Case 7"]
        assert visitor.get("served_volumes") == ["mr.nii.gz", "trus.nrrd"]
        visitor.set(served_mr="mr.nii.gz", served_trus="../served/mr.nii.gz")
        visitor.page.get_by_text("Load MR and TRUS").click()
        visitor.wait("state.error_shown")
        assert "same image" in visitor.get("error_text")
        visitor.set(error_shown=False, served_trus="trus.nrrd")
        visitor.page.get_by_text("Load MR and TRUS").click()
        visitor.wait("state.has_pair")
        visitor.set(served_result="Case 7")
        visitor.page.get_by_role("button", name="Open result").click()
        visitor.wait("state.has_case && !state.has_pair")
        assert visitor.problems == []
        visitor.close()


def test_a_closed_tab_ends_its_process(browser, address: str) -> None:
    import psutil

    visitor, own = _visitor_with_process(browser, address)
    visitor.close()
    psutil.wait_procs([psutil.Process(own)], timeout=60)
    assert not psutil.pid_exists(own)


def test_a_session_that_crashed_is_told(browser, address: str) -> None:
    import psutil

    visitor, own = _visitor_with_process(browser, address)
    psutil.Process(own).kill()
    visitor.page.locator(".session-ended").wait_for()
    visitor.page.reload()
    visitor.page.wait_for_url(re.compile(r"/s/[0-9a-f]{32}/$"))
    visitor.wait("state.has_case")
    visitor.close()


def _unpacked(path: Path) -> bytes:
    """All that a file holds, unpacked where it is an archive."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def _visitor_with_process(browser, address: str) -> tuple[Visitor, int]:
    """A visitor and the number of their own process."""
    # The first visitor of a server gets the process that it has started ahead.
    Visitor.open(browser, address).close()
    others = _sessions()
    visitor = Visitor.open(browser, address)
    [own] = _sessions() - others
    return visitor, own


def _sessions() -> set[int]:
    """The processes of the visitors of the servers that this process started."""
    import psutil

    return {each.pid for each in psutil.Process().children(recursive=True) if _is_session(each)}


def _is_session(process) -> bool:
    import psutil

    try:
        return "MRTRUSViewer.session" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


def test_the_sample_case_is_loaded_and_registered(browser) -> None:
    with served() as address:
        visitor = Visitor.open(browser, address)
        visitor.page.get_by_text("Sample case").click()
        visitor.wait("state.has_pair")
        visitor.settle()
        assert visitor.view().std() > 10
        visitor.set(method="rigid")
        visitor.page.locator(".register-button").click()
        visitor.wait("state.running")
        visitor.wait("state.has_case")
        visitor.settle()
        assert visitor.get("stages") == ["before", "rigid"]
        errors = {row["name"]: row for row in visitor.get("landmark_rows")}
        assert float(errors["TRE (RMS)"]["rigid"]) < 10
        visitor.open_panels("export")
        for title in ("Slicer scene", "Report"):
            with visitor.page.expect_download() as download:
                visitor.page.locator(".export-button", has_text=title).click()
            assert b"mrtrus-view-" not in _unpacked(download.value.path())
        assert visitor.problems == []
        visitor.close()

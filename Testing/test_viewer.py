"""The viewer without a browser: what is opened, what is served, what strangers get."""

from __future__ import annotations

import asyncio
import json
import zipfile
from pathlib import Path

import pytest

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSViewer.messages import without_paths
from MRTRUSViewer.opening import Opening, opening_of
from MRTRUSViewer.served import ServedFolder
from MRTRUSViewer.throttle import AsyncTimer, Throttle
from MRTRUSViewer.uploads import check_image, check_scene


def _file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_arguments_say_what_is_opened(tmp_path: Path) -> None:
    result = _file(tmp_path / "result" / "result.json").parent
    scene, mr, trus = (_file(tmp_path / name) for name in ("scene.mrb", "mr.nrrd", "trus.nrrd"))
    assert opening_of([]) == Opening()
    assert opening_of([result]) == Opening("result", (str(result),))
    assert opening_of([scene]) == Opening("scene", (str(scene),))
    assert opening_of([mr, trus]) == Opening("pair", (str(mr), str(trus)))
    assert opening_of([tmp_path]) == Opening(served=str(tmp_path))
    assert Opening.from_json(opening_of([mr, trus]).to_json()) == opening_of([mr, trus])


def test_arguments_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    mr = _file(tmp_path / "mr.nrrd")
    for paths in ([mr], [mr, mr, mr], [tmp_path / "gone"]):
        with pytest.raises(InputError, match="give"):
            opening_of(paths)


def test_the_served_folder_lists_what_can_be_opened(tmp_path: Path) -> None:
    _file(tmp_path / "cases" / "result.json")
    _file(tmp_path / "cases" / "registered_mr.nii.gz")
    _file(tmp_path / "images" / "mr.NII.gz")
    _file(tmp_path / "images" / "points.mrk.json")
    _file(tmp_path / "old.mrb")
    _file(tmp_path / "notes.txt")
    files = ServedFolder(tmp_path).files()
    assert files.results == ("cases", "old.mrb")
    assert files.volumes == ("images/mr.NII.gz",)
    assert files.points == ("images/points.mrk.json",)


def test_nothing_outside_of_the_served_folder_is_reached(tmp_path: Path) -> None:
    secret = _file(tmp_path / "secret.nrrd")
    root = tmp_path / "served"
    inside = _file(root / "mr.nrrd")
    (root / "link.nrrd").symlink_to(secret)
    (root / "folder").symlink_to(tmp_path)
    folder = ServedFolder(root)
    assert folder.path("mr.nrrd") == inside.resolve()
    assert folder.files().volumes == ("mr.nrrd",)
    for name in ("../secret.nrrd", str(secret), "link.nrrd", "folder/secret.nrrd", "", "."):
        with pytest.raises(InputError, match="does not lie in the served folder"):
            folder.path(name)
    with pytest.raises(InputError, match="no longer"):
        folder.path("gone.nrrd")


def test_an_uploaded_image_that_names_another_file_is_refused(tmp_path: Path) -> None:
    import numpy as np
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.zeros((8, 8, 8), np.uint8))
    for suffix in ("nrrd", "mha", "nii.gz"):
        sitk.WriteImage(image, str(tmp_path / f"whole.{suffix}"))
        check_image(tmp_path / f"whole.{suffix}")
    for suffix in ("nhdr", "mhd"):
        sitk.WriteImage(image, str(tmp_path / f"parted.{suffix}"))
        with pytest.raises(InputError, match="its own voxels"):
            check_image(tmp_path / f"parted.{suffix}")
        # What the file is called does not matter.
        hidden = tmp_path / f"{suffix}.nrrd"
        hidden.write_bytes((tmp_path / f"parted.{suffix}").read_bytes())
        with pytest.raises(InputError, match="its own voxels"):
            check_image(hidden)


@pytest.mark.parametrize(
    "place",
    ["/srv/case.nrrd", "../case.nrrd", "Data/../../x", "%2Fsrv/x.nrrd", "file:///srv/x", "C:\\x.nrrd"],
)
def test_an_uploaded_scene_that_names_files_outside_is_refused(tmp_path: Path, place: str) -> None:
    def bundle(attribute: str, name: str) -> Path:
        path = tmp_path / "scene.mrb"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("scene/scene.mrml", f'<MRML><VolumeStorage id="s" {attribute}="{name}"/></MRML>')
        return path

    check_scene(bundle("fileName", "Data/MR%20image.nrrd"))
    for attribute in ("fileName", "fileListMember0", "uri"):
        with pytest.raises(InputError, match="outside of it"):
            check_scene(bundle(attribute, place))
    with pytest.raises(InputError, match="not a Slicer scene"):
        check_scene(_file(tmp_path / "empty.mrb"))


def test_sentences_hold_no_path_of_the_server() -> None:
    given = "/tmp/mrtrus-view-x1/upload/mr/a.nii.gz is a 2-D image: give a 3-D volume."
    assert without_paths(given) == "a.nii.gz is a 2-D image: give a 3-D volume."
    assert without_paths("'/srv/my data/b.mrb' cannot be read\n(/srv/c)") == "'b.mrb' cannot be read (c)"
    assert without_paths(r"C:\cases\new\mr.nrrd is empty.") == "mr.nrrd is empty."
    harmless = "DSC 0.8 and/or TRE 3 mm; MR/TRUS; see http-less text."
    assert without_paths(harmless) == harmless


def test_a_throttle_shows_the_newest_and_builds_no_queue() -> None:
    shown: list[dict[str, int]] = []

    async def sweep() -> None:
        throttle = Throttle(lambda **changes: shown.append(changes), interval_s=0.05)
        for value in range(100):
            throttle.ask(opacity=value)
            await asyncio.sleep(0.001)
        throttle.ask(position=7)
        await asyncio.sleep(0.2)

    asyncio.run(sweep())
    assert len(shown) < 20
    assert {key: value for changes in shown for key, value in changes.items()} == {
        "opacity": 99,
        "position": 7,
    }


def test_a_timer_calls_until_it_is_stopped() -> None:
    calls = []

    async def run() -> None:
        timer = AsyncTimer(5, lambda: calls.append(1))
        timer.start()
        timer.start()
        await asyncio.sleep(0.1)
        timer.stop()
        at_stop = len(calls)
        await asyncio.sleep(0.05)
        assert len(calls) == at_stop

    asyncio.run(run())
    assert 3 < len(calls) < 25


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--host", "0.0.0.0"], "give a --token"),
        (["--host", "0.0.0.0", "--token", "abc"], "too short"),
        (["--port", "70000"], "give another --port"),
        (["--host", "203.0.113.7", "--token", "long enough"], "give another --port"),
    ],
)
def test_an_unsafe_or_impossible_address_is_refused(run_cli, options: list[str], sentence: str) -> None:
    from MRTRUSRegistrationLib.cli import add_plugins

    add_plugins()
    code, _, error = run_cli(["view", "--no-browser", *options])
    assert code == 2
    assert sentence in error


def test_a_missing_models_folder_is_said_before_anything_is_served(
    run_cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from MRTRUSRegistrationLib.cli import add_plugins

    add_plugins()
    monkeypatch.setenv("MRTRUS_MODELS", str(tmp_path / "none"))
    # A port that does not exist, so that nothing is served even where the folder is not looked at.
    code, output, error = run_cli(["view", "--no-browser", "--port", "70000"])
    assert code == 2
    assert "none of MRTRUS_MODELS does not exist" in error
    assert not output


def test_only_those_who_belong_here_are_answered(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    from aiohttp.test_utils import TestClient, TestServer

    from MRTRUSViewer.front import Front
    from MRTRUSViewer.sessions import Sessions

    async def statuses(token: str | None, asked: list[tuple[str, dict[str, str]]]) -> list[int]:
        front = Front(Sessions(Opening(), most=0), token=token)
        async with TestClient(TestServer(front.app)) as client:
            return [(await client.get(path, headers=headers)).status for path, headers in asked]

    # There is no place for anybody: 503 is the answer to those who may come in.
    own = [("/", {}), ("/", {"Host": "viewer.example"}), ("/s/0123/ws", {}), ("/s/0123/", {})]
    assert asyncio.run(statuses(None, own)) == [503, 403, 410, 503]
    known = [("/", {}), ("/?token=wrong", {}), ("/?token=right", {}), ("/", {"Cookie": "mrtrus_token=right"})]
    assert asyncio.run(statuses("right", known)) == [403, 403, 503, 503]


def test_state_of_the_page_and_of_the_review_have_the_same_fields() -> None:
    pytest.importorskip("trame_slicer")
    from dataclasses import fields

    from MRTRUSRegistrationLib.mrml.review import ReviewState
    from MRTRUSViewer import panels, review_section

    assert set(review_section._FIELDS) == {entry.name for entry in fields(ReviewState)}
    assert {mode for mode, _ in panels._MODES} == set(review_section.MODES)
    assert json.dumps([review_section._legend(name) for name in ("none", "jacobian")])

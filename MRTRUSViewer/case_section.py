"""The section Case: the sample case, uploaded files, files of the served folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.mrml.case_nodes import CaseNodes
from MRTRUSRegistrationLib.mrml.review import set_layers
from MRTRUSRegistrationLib.sample_case import sample_folder

from .loading import PairFiles, PairNodes, open_pair, open_result, open_scene
from .opening import Opening
from .served import ServedFiles, ServedFolder
from .uploads import check_image, check_scene

if TYPE_CHECKING:
    from .app import Viewer

ROLES = ("mr", "trus", "mr_landmarks", "trus_landmarks", "targets")
SCENE = "scene"
_SAMPLE = PairFiles(
    Path("mr.nii.gz"),
    Path("trus.nii.gz"),
    Path("mr_landmarks.mrk.json"),
    Path("trus_landmarks.mrk.json"),
)


class CaseSection:
    """What is looked at; `pair` are the images that can be registered."""

    def __init__(self, viewer: Viewer, opening: Opening) -> None:
        self._viewer, self._opening = viewer, opening
        self._uploads = viewer.folder / "upload"
        self._served = ServedFolder(Path(opening.served)) if opening.served else None
        self.pair: PairNodes | None = None
        files = self._served.files() if self._served else ServedFiles()
        viewer.state.update(
            {
                "has_case": False,
                "has_pair": False,
                "case_name": "",
                "case_notes": [],
                "pair_shown": "trus",
                "served": self._served is not None,
                "served_results": list(files.results),
                "served_volumes": list(files.volumes),
                "served_points": list(files.points),
                "served_result": None,
                **{f"served_{role}": None for role in ROLES},
                **{f"upload_{role}": "" for role in ROLES},
            }
        )
        viewer.state.change("pair_shown")(self._on_pair_shown)

    def open_first(self) -> None:
        """What the command was asked to open."""
        paths = [Path(path) for path in self._opening.paths]
        if self._opening.kind == "result":
            self._open_case(open_result, paths[0])
        elif self._opening.kind == "scene":
            self._open_case(open_scene, paths[0])
        elif self._opening.kind == "pair":
            self._load(PairFiles(*paths), name=paths[0].name.split(".")[0])

    def open_sample(self) -> None:
        folder = sample_folder()
        roles = ("mr", "trus", "mr_landmarks", "trus_landmarks")
        self._load(PairFiles(*(folder / getattr(_SAMPLE, role) for role in roles)), name="Sample case")

    def open_served_result(self) -> None:
        """Open the chosen result or scene of the served folder."""
        name = self._viewer.state.served_result
        if self._served is None or not name:
            raise InputError("No result is chosen: choose one in the list.")
        path = self._served.path(name)
        self._open_case(open_result if path.is_dir() else open_scene, path)

    def open_files(self) -> None:
        """Load the chosen and uploaded files as a pair that can be registered."""
        paths = {role: self._path(role) for role in ROLES}
        if paths["mr"] is None or paths["trus"] is None:
            missing = "MR" if paths["mr"] is None else "TRUS"
            raise InputError(f"There is no {missing}: upload or choose one.")
        self._load(PairFiles(**paths), name=paths["mr"].name.split(".")[0])  # type: ignore[arg-type]

    def uploaded(self, role: str) -> None:
        """A file has arrived completely; a scene is opened at once."""
        path = self._upload(role)
        if path is None:
            raise InputError("The upload is empty: choose a file.")
        if role != SCENE:
            check_image(path)
            self._viewer.state[f"upload_{role}"] = path.name
            self._viewer.state[f"served_{role}"] = None
            return
        check_scene(path)
        self._open_case(open_scene, path)

    def upload_folder(self, role: str) -> Path:
        """Where the files of a role go; `InputError` for a role that there is not."""
        if role not in (*ROLES, SCENE):
            raise InputError("This kind of file cannot be uploaded.")
        return self._uploads / role

    def refresh(self, case: CaseNodes | None) -> None:
        if case is not None:
            self._viewer.state.case_name = case.name

    def _path(self, role: str) -> Path | None:
        """The chosen file of the served folder, else the uploaded one; `None` without either."""
        chosen = self._viewer.state[f"served_{role}"]
        if chosen and self._served is not None:
            return self._served.path(chosen)
        return self._upload(role) if self._viewer.state[f"upload_{role}"] else None

    def _upload(self, role: str) -> Path | None:
        """The uploaded file; the folder where there are several, which are a DICOM series."""
        folder = self.upload_folder(role)
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return folder if len(found) > 1 else next(iter(found), None)

    def _load(self, files: PairFiles, *, name: str) -> None:
        self._viewer.registering.check_idle()
        before = self._viewer.nodes()
        pair = open_pair(self._viewer.scene, files, name)
        self._viewer.remove(before)
        self.pair = pair
        state = self._viewer.state
        state.case_name, state.has_pair = name, True
        state.case_notes = [warning.message for warning in pair.warnings]
        state.pair_shown = "trus"
        self._viewer.select(None)
        self._show_image("trus")

    def _open_case(self, opened: Callable[[Any, Path], CaseNodes], path: Path) -> None:
        """Open a registered case in the place of what is there, which stays where that fails."""
        self._viewer.registering.check_idle()
        before = self._viewer.nodes()
        case = opened(self._viewer.scene, path)
        self._viewer.remove(before)
        self.pair = None
        self._viewer.state.update({"has_pair": False, "case_notes": []})
        self._viewer.select(case)
        self._viewer.views.fit()

    def _on_pair_shown(self, pair_shown: str, **_: object) -> None:
        if self.pair is not None and self._viewer.case is None:
            self._show_image(pair_shown)

    def _show_image(self, image: str) -> None:
        """One of the two images: before a registration they lie in different places."""
        assert self.pair is not None
        set_layers(self._viewer.scene, getattr(self.pair, image), None, 0.0)
        self._viewer.views.fit()

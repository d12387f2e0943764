"""Scene bundles (.mrb) written and read without the Slicer application.

slicer is imported inside the functions, so that hosts without it can ask whether it is there.
"""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..results import Registration

if TYPE_CHECKING:
    import slicer

_LOG = logging.getLogger(__name__)


def slicer_available() -> bool:
    """Whether MRML is there: desktop Slicer's Python, or slicer-core with the libraries that it needs."""
    try:
        import slicer
    except ImportError:
        return False
    # Another package on PyPI has the same name.
    return hasattr(slicer, "vtkMRMLScene")


def new_scene() -> slicer.vtkMRMLScene:
    """An empty scene that can read and write every node class that a case is made of.

    The markups logic would register its storage class too, but it also expects an application's nodes.
    """
    import slicer

    scene = slicer.vtkMRMLScene()
    if not scene.IsNodeClassRegistered("vtkMRMLMarkupsJsonStorageNode"):
        scene.RegisterNodeClass(slicer.vtkMRMLMarkupsJsonStorageNode())
    return scene


def write_scene(result: Registration, path: Path, *, name: str) -> None:
    """Write one registration as the scene bundle `path`, its nodes in a folder called `name`.

    The bundle is made in a temporary folder beside `path` and moved into place when complete. `InputError`
    without slicer-core, `OSError` if the bundle cannot be written.
    """
    if not slicer_available():
        raise InputError(
            f"Writing {path.name} needs slicer-core: install it with pip install mrtrus[slicer]."
        )
    with tempfile.TemporaryDirectory(prefix=".scene-", dir=path.parent) as folder, quiet_vtk():
        bundle = Path(folder) / path.name
        _write_bundle(result, bundle, name)
        os.replace(bundle, path)


def _write_bundle(result: Registration, bundle: Path, name: str) -> None:
    """Write the bundle; its scene ends here, where VTK is still quiet."""
    import slicer

    from .case import add_case

    scene = new_scene()
    add_case(scene, result, name=name)
    scene.SetRootDirectory(str(bundle.parent))
    messages = slicer.vtkMRMLMessageCollection()
    if not scene.WriteToMRB(str(bundle), None, messages):
        _LOG.debug("Writing the scene failed: %s", messages.GetAllMessagesAsString())
        raise OSError("the scene's files could not be written; the disk may be full")


def read_scene(path: Path) -> slicer.vtkMRMLScene:
    """Read a scene bundle into a new scene; `InputError` if it is not one."""
    scene = new_scene()
    import_scene(scene, path)
    return scene


def import_scene(scene: slicer.vtkMRMLScene, path: Path) -> None:
    """Add what a scene bundle holds to a scene; `InputError` if it is not one.

    The scene's own `ReadFromMRB` needs the application's cache folder, so the bundle is unpacked here.
    """
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not a Slicer scene bundle (.mrb).")
    with tempfile.TemporaryDirectory() as folder, quiet_vtk():
        with zipfile.ZipFile(path) as bundle:
            bundle.extractall(folder)
        scene_files = sorted(Path(folder).glob("*/*.mrml"))
        if len(scene_files) != 1:
            raise InputError(f"{path} is not a Slicer scene bundle (.mrb): it does not hold one scene.")
        scene.SetURL(str(scene_files[0]))
        scene.SetRootDirectory(str(scene_files[0].parent))
        if not scene.Import():
            raise InputError(f"{path} cannot be read as a Slicer scene: {scene.GetErrorMessage()}")


@contextmanager
def quiet_vtk() -> Iterator[None]:
    """Silence VTK: without an application it warns about nodes that nobody misses.

    What fails is told by return values and by a scene's own messages. Two switches, as warnings go to the
    log whatever the output window is, and the archiver's messages to the window whatever the first one says.
    """
    import vtk

    shown, window = vtk.vtkObject.GetGlobalWarningDisplay(), vtk.vtkOutputWindow.GetInstance()
    vtk.vtkObject.GlobalWarningDisplayOff()
    vtk.vtkOutputWindow.SetInstance(vtk.vtkStringOutputWindow())
    try:
        yield
    finally:
        vtk.vtkOutputWindow.SetInstance(window)
        vtk.vtkObject.SetGlobalWarningDisplay(shown)

"""Uploaded files may name other files, which would be the server's: such a file is refused before it is read.

Headers of NRRD and MetaImage may say that the voxels lie elsewhere, and so may every node of a scene.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote
from xml.etree import ElementTree

from MRTRUSRegistrationLib.errors import InputError

# Longer headers are those of nobody's images.
_HEADER_BYTES = 1 << 20
_LARGEST_SCENE_BYTES = 4 << 30
_HEADERS = (".nrrd", ".nhdr", ".mha", ".mhd")
_NRRD_END = re.compile(rb"\r?\n\r?\n")
_NRRD_ELSEWHERE = re.compile(rb"^\s*data ?file\s*:", re.IGNORECASE | re.MULTILINE)
_META_DATA = re.compile(rb"ElementDataFile\s*=\s*(\S+)", re.IGNORECASE)
# Attributes of MRML nodes that hold a place: fileName, fileListMember0, uri, uriListMember0, url …
_PLACE = re.compile(r"(file(name|list)|uri|url)", re.IGNORECASE)


def check_image(path: Path) -> None:
    """`InputError` where an uploaded image says that its voxels lie in another file; folders file by file."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        with file.open("rb") as stream:
            _check_header(stream, file.name)


def check_scene(path: Path) -> None:
    """`InputError` for a bundle that is none, that would fill the disk, or that names files outside of it."""
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path.name} is not a Slicer scene bundle (.mrb): choose another file.")
    with zipfile.ZipFile(path) as bundle:
        if sum(entry.file_size for entry in bundle.infolist()) > _LARGEST_SCENE_BYTES:
            raise InputError(f"{path.name} is too large for a case: choose another file.")
        for name in bundle.namelist():
            with bundle.open(name) as stream:
                if name.lower().endswith(".mrml"):
                    _check_nodes(stream, path.name)
                elif name.lower().endswith(_HEADERS):
                    _check_header(stream, path.name)


def _check_header(stream: IO[bytes], name: str) -> None:
    head = stream.read(_HEADER_BYTES)
    if head.startswith(b"NRRD"):
        end = _NRRD_END.search(head)
        complete = end is not None and not _NRRD_ELSEWHERE.search(head[: end.end()])
    else:
        found = _META_DATA.findall(head)
        complete = all(place.upper() == b"LOCAL" for place in found)
        complete = complete and bool(found or not name.lower().endswith((".mha", ".mhd")))
    if not complete:
        raise InputError(
            f"{name} does not hold its own voxels: save it as one file (.nrrd, .mha or .nii.gz)."
        )


def _check_nodes(stream: IO[bytes], name: str) -> None:
    try:
        nodes = ElementTree.parse(stream).iter()
    except ElementTree.ParseError as error:
        raise InputError(f"{name} is damaged: save the scene again.") from error
    for node in nodes:
        places = [value for key, value in node.attrib.items() if _PLACE.match(key)]
        if not all(_lies_inside(unquote(place)) for place in places):
            raise InputError(
                f"{name} refers to files outside of it: save the scene as a bundle (.mrb) again."
            )


def _lies_inside(place: str) -> bool:
    """Whether a place in a scene is a relative path that stays below the scene's folder."""
    path = PurePosixPath(place.replace("\\", "/"))
    return ":" not in place and not path.is_absolute() and ".." not in path.parts

"""Text nodes: what the scene is, and how it was made."""

from __future__ import annotations

import json

import slicer
import vtk

NOTICE = "Research use only; not a medical device."


def add_text(scene: slicer.vtkMRMLScene, text: str, name: str) -> slicer.vtkMRMLTextNode:
    """Add a text node (UTF-8; MRML would take it for ASCII)."""
    node = scene.AddNewNodeByClass("vtkMRMLTextNode", name)
    node.SetEncoding(vtk.VTK_ENCODING_UTF_8)
    node.SetText(text)
    return node


def provenance_json(provenance: dict[str, object]) -> str:
    """The provenance as indented JSON; values that JSON does not know (paths, dates) become text."""
    return json.dumps(provenance, indent=2, ensure_ascii=False, sort_keys=True, default=str)

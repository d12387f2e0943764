"""Changing a scene in one step, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import slicer
import vtk


@contextmanager
def all_or_nothing(scene: slicer.vtkMRMLScene) -> Iterator[None]:
    """Batch the changes of a `with` block; on any error every node added in it is removed again.

    Views and widgets update once, at the end. Existing nodes should be changed last, where nothing fails.
    """
    before = {node.GetID() for node in _nodes(scene)}
    items = _folder_items(scene)
    scene.StartState(slicer.vtkMRMLScene.BatchProcessState)
    try:
        yield
    except BaseException:
        _remove_folders(scene, keep=items)
        for node in _nodes(scene):
            if node.GetID() not in before:
                scene.RemoveNode(node)
        raise
    finally:
        scene.EndState(slicer.vtkMRMLScene.BatchProcessState)


def _nodes(scene: slicer.vtkMRMLScene) -> list[slicer.vtkMRMLNode]:
    collection = scene.GetNodes()
    return [collection.GetItemAsObject(n) for n in range(collection.GetNumberOfItems())]


def _folder_items(scene: slicer.vtkMRMLScene) -> set[int]:
    hierarchy = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    found = vtk.vtkIdList()
    if hierarchy is not None:
        hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), found, True)
    return {found.GetId(n) for n in range(found.GetNumberOfIds())}


def _remove_folders(scene: slicer.vtkMRMLScene, *, keep: set[int]) -> None:
    hierarchy = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    for item in _folder_items(scene) - keep:
        # A parent that went first took its children along.
        if hierarchy.GetItemName(item):
            hierarchy.RemoveItem(item, False, False)

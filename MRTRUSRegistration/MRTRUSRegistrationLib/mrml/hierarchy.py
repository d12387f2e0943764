"""The subject hierarchy: one folder a case."""

from __future__ import annotations

from collections.abc import Iterable

import slicer


def add_case_folder(scene: slicer.vtkMRMLScene, name: str, nodes: Iterable[slicer.vtkMRMLNode]) -> int:
    """Put the nodes, in their order, into a new folder `name`; returns the folder's item ID."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), name)
    for node in nodes:
        # Desktop Slicer makes an item for every node by itself, a bare scene does not.
        item = hierarchy.GetItemByDataNode(node)
        if item == hierarchy.GetInvalidItemID():
            hierarchy.CreateItem(folder, node)
        else:
            hierarchy.SetItemParent(item, folder)
    return int(folder)

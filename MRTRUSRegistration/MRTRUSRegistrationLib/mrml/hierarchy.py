"""The subject hierarchy: one folder a case, with a folder for every later version in it."""

from __future__ import annotations

from collections.abc import Iterable

import slicer
import vtk


def add_case_folder(
    scene: slicer.vtkMRMLScene,
    name: str,
    nodes: Iterable[slicer.vtkMRMLNode],
    *,
    folder_item: int | None = None,
) -> int:
    """Put the nodes, in their order, into a new folder `name` or the given one; returns its item ID."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if folder_item is None:
        folder_item = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), name)
    _fill(hierarchy, folder_item, nodes)
    return int(folder_item)


def add_version_folder(
    scene: slicer.vtkMRMLScene,
    sibling: slicer.vtkMRMLNode | None,
    name: str,
    nodes: Iterable[slicer.vtkMRMLNode],
) -> int:
    """Put the nodes into a new folder inside the case's folder, which is where `sibling` lies."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    case_folder = _case_folder(hierarchy, sibling)
    folder = hierarchy.CreateFolderItem(case_folder, name)
    hierarchy.SetItemAttribute(folder, "MRTRUSRegistration.Version", name)
    _fill(hierarchy, folder, nodes)
    return int(folder)


def remove_node(node: slicer.vtkMRMLNode) -> None:
    """Remove a node from its scene, and its item, which a bare scene would keep."""
    scene = node.GetScene()
    hierarchy = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    if item:
        hierarchy.RemoveItem(item, False, False)
    scene.RemoveNode(node)


def remove_empty_folder(scene: slicer.vtkMRMLScene, item: int) -> None:
    """Remove a folder item and those above it that nothing lies in any more."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    while item not in (hierarchy.GetSceneItemID(), hierarchy.GetInvalidItemID()):
        children = vtk.vtkIdList()
        hierarchy.GetItemChildren(item, children)
        if children.GetNumberOfIds():
            return
        parent = hierarchy.GetItemParent(item)
        hierarchy.RemoveItem(item)
        item = parent


def folder_of(node: slicer.vtkMRMLNode | None) -> int:
    """The item of the folder that a node lies in; 0 where it lies in none."""
    if node is None or node.GetScene() is None:
        return 0
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    item = hierarchy.GetItemByDataNode(node)
    return int(hierarchy.GetItemParent(item)) if item else 0


def put_beside(node: slicer.vtkMRMLNode, sibling: slicer.vtkMRMLNode | None) -> None:
    """Put a node into the folder where `sibling` lies, if it lies in one."""
    folder = folder_of(sibling)
    if folder:
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
        _fill(hierarchy, folder, (node,))


def _case_folder(hierarchy: slicer.vtkMRMLSubjectHierarchyNode, sibling: slicer.vtkMRMLNode | None) -> int:
    folder = folder_of(sibling) or hierarchy.GetSceneItemID()
    if hierarchy.GetItemAttribute(folder, "MRTRUSRegistration.Version"):
        folder = hierarchy.GetItemParent(folder)
    return int(folder)


def _fill(
    hierarchy: slicer.vtkMRMLSubjectHierarchyNode, folder: int, nodes: Iterable[slicer.vtkMRMLNode]
) -> None:
    for node in nodes:
        # Desktop Slicer makes an item for every node by itself, a bare scene does not.
        item = hierarchy.GetItemByDataNode(node)
        if item == hierarchy.GetInvalidItemID():
            hierarchy.CreateItem(folder, node)
        else:
            hierarchy.SetItemParent(item, folder)

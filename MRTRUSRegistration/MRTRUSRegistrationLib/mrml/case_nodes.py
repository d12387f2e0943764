"""Which nodes belong to a case: references of one case node, so that saving and reloading keeps them.

A case is one registration of an MR and a TRUS volume. Registering again adds a version; every version has a
case node of its own, and all versions share the case's identifier.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import slicer

from ..errors import InputError
from .hierarchy import remove_node

PREFIX = "MRTRUSRegistration."
# A node that a role points to has to say so itself: nodes that are not saved leave their ID free for others.
_ROLE_ATTRIBUTE = PREFIX + "Role"
_CASE_ATTRIBUTE = PREFIX + "Case"
_MODULE_NAME = "MRTRUSRegistrationCase"
# Given by the user, or shared by all versions: never deleted with a version.
INPUT_ROLES = ("mr", "trus", "mrTargets", "mrTargetSegments", "mrParent")
# Made from others whenever they are shown, and therefore not saved.
DERIVED_ROLES = (
    "registeredMR",
    "versionMR",
    "comparison",
    "mrOutline",
    "trusOutline",
    "errorVectors",
    "arrows",
    "warpedGrid",
)
RESULT_ROLES = (
    "trusGland",
    "mrGland",
    "rigid",
    "deformation",
    "trusLandmarks",
    "mrLandmarks",
    "measures",
    "landmarkErrors",
    "notice",
    "provenance",
    "report",
    "confidence",
    "initial",
    "displacement",
    "jacobian",
    "targets",
    "targetSegments",
    "targetTable",
)


def _role(role: str) -> property:
    def find(case: CaseNodes) -> Any:
        return case.get(role)

    return property(find, doc=f"The node with the role {role}, or None.")


@dataclass(frozen=True)
class CaseNodes:
    """The nodes of one version of a case.

    Every property looks its node up anew: it is `None` where the registration had nothing for it, and after
    the node was deleted or the scene closed.
    """

    node: slicer.vtkMRMLScriptedModuleNode

    mr = _role("mr")
    trus = _role("trus")
    mr_gland = _role("mrGland")
    trus_gland = _role("trusGland")
    initial = _role("initial")
    rigid = _role("rigid")
    deformation = _role("deformation")
    mr_landmarks = _role("mrLandmarks")
    trus_landmarks = _role("trusLandmarks")
    measures = _role("measures")
    landmark_errors = _role("landmarkErrors")
    notice = _role("notice")
    provenance = _role("provenance")
    report = _role("report")
    confidence = _role("confidence")
    mr_targets = _role("mrTargets")
    mr_target_segments = _role("mrTargetSegments")
    targets = _role("targets")
    target_segments = _role("targetSegments")

    @property
    def scene(self) -> slicer.vtkMRMLScene:
        """The scene; `InputError` when the case was deleted or the scene closed."""
        scene = self.node.GetScene()
        if scene is None:
            raise InputError("The case is no longer in the scene: load it or register again.")
        return scene

    @property
    def present(self) -> bool:
        """Whether the case is still in a scene."""
        return self.node.GetScene() is not None

    @property
    def name(self) -> str:
        return self.attribute("Name") or self.node.GetName()

    @property
    def case_id(self) -> str:
        return self.attribute("Case")

    @property
    def version(self) -> int:
        return int(self.attribute("Version") or 1)

    @property
    def active(self) -> bool:
        """Whether this is the version that is shown."""
        return self.attribute("Active") == "1"

    @property
    def warnings(self) -> tuple[dict[str, str], ...]:
        """The warnings of the registration, each with `code` and `message`."""
        return tuple(json.loads(self.attribute("Warnings") or "[]"))

    def attribute(self, key: str) -> str:
        """A value that the case node keeps, "" where it has none."""
        return self.node.GetAttribute(PREFIX + key) or ""

    def set_attribute(self, key: str, value: str) -> None:
        self.node.SetAttribute(PREFIX + key, value)

    def get(self, role: str) -> Any:
        """The node with that role, or `None`."""
        node = self.node.GetNodeReference(role) if self.present else None
        if node is None or node.GetScene() is not self.node.GetScene():
            return None
        owned = role in INPUT_ROLES or node.GetAttribute(_ROLE_ATTRIBUTE) == role
        return node if owned else None

    def set(self, role: str, node: slicer.vtkMRMLNode | None) -> None:
        """Give a node a role; `None` takes the role away. Nodes of derived roles are not saved."""
        self.node.SetNodeReferenceID(role, node.GetID() if node is not None else None)
        if node is not None and role not in INPUT_ROLES:
            node.SetAttribute(_ROLE_ATTRIBUTE, role)
        if node is not None and role in DERIVED_ROLES:
            _leave_out_of_files(node)

    def remove(self, role: str) -> None:
        """Delete the node with that role from the scene, unless it is an input."""
        node = self.get(role)
        self.node.SetNodeReferenceID(role, None)
        if node is not None and role not in INPUT_ROLES:
            remove_node(node)

    def results(self) -> Iterator[slicer.vtkMRMLNode]:
        """Every node that exists because of this version; the inputs are not among them."""
        for role in (*RESULT_ROLES, *DERIVED_ROLES):
            node = self.get(role)
            if node is not None:
                yield node


def new_case_node(scene: slicer.vtkMRMLScene, *, name: str, previous: CaseNodes | None) -> CaseNodes:
    """A case node without roles: the first version of a new case, or the next one after `previous`."""
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", f"{name} case")
    node.SetModuleName(_MODULE_NAME)
    node.SetHideFromEditors(True)
    case = CaseNodes(node)
    case.set_attribute("Case", previous.case_id if previous else uuid.uuid4().hex)
    case.set_attribute("Name", name)
    versions = [other.version for other in find_cases(scene) if other.case_id == case.case_id]
    # The node itself is among them, with the default version 1.
    case.set_attribute("Version", str(max(versions) + 1 if previous else 1))
    return case


def find_cases(scene: slicer.vtkMRMLScene) -> list[CaseNodes]:
    """Every version of every case in the scene, in the order of their making."""
    nodes = scene.GetNodesByClass("vtkMRMLScriptedModuleNode")
    nodes.UnRegister(None)  # the collection is a new one, which VTK's Python would otherwise leak
    found = [nodes.GetItemAsObject(n) for n in range(nodes.GetNumberOfItems())]
    return [CaseNodes(node) for node in found if node.GetAttribute(_CASE_ATTRIBUTE)]


def case_nodes(node: slicer.vtkMRMLNode | None) -> CaseNodes | None:
    """The case of a case node; `None` for any other node."""
    return CaseNodes(node) if node is not None and node.GetAttribute(_CASE_ATTRIBUTE) else None


def _leave_out_of_files(node: slicer.vtkMRMLNode) -> None:
    node.SetSaveWithScene(False)
    for n in range(node.GetNumberOfDisplayNodes() if hasattr(node, "GetNumberOfDisplayNodes") else 0):
        node.GetNthDisplayNode(n).SetSaveWithScene(False)

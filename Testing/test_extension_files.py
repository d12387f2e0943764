"""The extension as the Extensions Index and Slicer's build see it: lists, names, the .ui file, the icon."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from extension_files import MODULE, ROOT, is_script, listed_files, shipped_files
from PIL import Image

from MRTRUSRegistrationLib import HOMEPAGE
from MRTRUSRegistrationLib.doctor import _OPTIONAL

UI = MODULE / "Resources" / "UI" / "MRTRUSRegistration.ui"
MODULE_FILE = MODULE / "MRTRUSRegistration.py"
GUI = MODULE / "MRTRUSRegistrationLib" / "gui"
# These have no words or pictures of their own to explain.
NEEDS_NO_TOOLTIP = {"QLabel", "ctkCollapsibleButton", "qMRMLWidget", "QWidget"}


def ui_widgets() -> list[ElementTree.Element]:
    return list(ElementTree.parse(UI).iter("widget"))


def widget_property(widget: ElementTree.Element, name: str) -> str | None:
    found = widget.find(f"property[@name='{name}']")
    return None if found is None else "".join(found.itertext()).strip()


def cmake_value(name: str) -> str:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    return re.search(rf'set\({name} "?(.*?)"?\)', text)[1]


def parameter_fields() -> set[str]:
    tree = ast.parse(MODULE_FILE.read_text(encoding="utf-8"))
    node = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name.endswith("ParameterNode"))
    return {n.target.id for n in node.body if isinstance(n, ast.AnnAssign)}


def test_install_lists_name_what_is_there():
    """A forgotten file works in the source tree and breaks for users."""
    lists = listed_files()
    listed = [path for paths in lists.values() for path in paths]
    assert len(listed) == len(set(listed))
    missing = set(shipped_files()) - set(listed)
    gone = set(listed) - set(shipped_files())
    assert (missing, gone) == (set(), set()), "run python Testing/extension_files.py"
    assert all(is_script(path) for path in lists["MODULE_PYTHON_SCRIPTS"])


def test_python_files_in_the_module_folder_are_modules():
    """Slicer takes every one of them for a module."""
    assert [path.name for path in MODULE.glob("*.py")] == ["MRTRUSRegistration.py"]


def test_tests_are_registered():
    folder = MODULE / "Testing" / "Python"
    listed = re.findall(r"SCRIPT (\w+\.py)", (folder / "CMakeLists.txt").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(path.name for path in folder.glob("*.py"))
    for name in listed:
        tree = ast.parse((folder / name).read_text(encoding="utf-8"))
        # Slicer's runner looks for a test case of the file's name.
        assert name.removesuffix(".py") in {n.name for n in tree.body if isinstance(n, ast.ClassDef)}


def test_index_entry():
    raw = (ROOT / "MRTRUSRegistration.json").read_bytes()
    assert b"\r" not in raw
    entry = json.loads(raw)
    allowed = {
        "$schema",
        "build_dependencies",
        "build_subdirectory",
        "category",
        "dicom_support_rule",
        "enabled",
        "scm_revision",
        "scm_url",
        "tier",
    }
    assert {"$schema", "category", "scm_url"} <= set(entry) <= allowed
    assert entry["build_dependencies"] == [cmake_value("EXTENSION_DEPENDS")] == ["PyTorch"]
    assert entry["category"] == "Registration"
    assert re.fullmatch(r"https://github\.com/[\w-]+/SlicerMRTRUSRegistration\.git", entry["scm_url"])


def test_extension_metadata():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    # The Index takes the first text of this form, in comments too.
    assert re.search(r"project\(\s*(\w+)", text)[1] == "MRTRUSRegistration"
    home = cmake_value("EXTENSION_HOMEPAGE")
    raw = home.replace("github.com", "raw.githubusercontent.com") + "/main/"
    for url in [cmake_value("EXTENSION_ICONURL"), *cmake_value("EXTENSION_SCREENSHOTURLS").split(" ")]:
        assert url.startswith(raw)
        assert url.endswith(".png")
        assert (ROOT / url.removeprefix(raw)).is_file()
    assert home == HOMEPAGE
    assert home + ".git" == json.loads((ROOT / "MRTRUSRegistration.json").read_text())["scm_url"]


@pytest.mark.parametrize("folder", [ROOT / "Resources", MODULE / "Resources"])
def test_icon(folder: Path):
    with Image.open(folder / "Icons" / "MRTRUSRegistration.png") as icon:
        assert icon.format == "PNG"
        assert icon.size == (128, 128)


def sample_entries() -> list[tuple[str, str]]:
    """Names and checksums of the sample data that the module registers."""
    text = (GUI / "sample_data.py").read_text(encoding="utf-8")
    return re.findall(r'"(\S+?\.(?:nii\.gz|mrk\.json))",\s+"[^"]+",\s+"\w+",\s+"([0-9a-f]{64})"', text)


def test_sample_data_checksums_are_those_of_the_files():
    entries = sample_entries()
    assert len(entries) == 4
    for name, checksum in entries:
        content = (ROOT / "Resources" / "SampleCase" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == checksum


BUILD = """
cmake_minimum_required(VERSION 3.20)
project(build NONE)
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/modules)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR lib/modules)
function(slicerMacroBuildScriptedModule)
endfunction()
add_subdirectory("{module}" module)
"""


@pytest.mark.skipif(shutil.which("cmake") is None, reason="CMake is not installed")
def test_the_sample_case_is_installed_where_the_panel_looks(tmp_path: Path):
    """Built and installed without Slicer's own macro, which puts the library beside its Resources."""
    (tmp_path / "CMakeLists.txt").write_text(BUILD.format(module=MODULE.as_posix()), encoding="utf-8")
    for command in (["-S", ".", "-B", "build"], ["--install", "build", "--prefix", "installed"]):
        subprocess.run(["cmake", *command], cwd=tmp_path, check=True, capture_output=True)
    for tree in ("build", "installed"):
        modules = tmp_path / tree / "lib" / "modules"
        # Built by Slicer's macro otherwise.
        library = shutil.copytree(MODULE / "MRTRUSRegistrationLib", modules / "MRTRUSRegistrationLib")
        code = "from MRTRUSRegistrationLib.gui import sample_data; print(sample_data.sample_folder())"
        asked = subprocess.run(
            [sys.executable, "-c", code], cwd=library.parent, check=True, capture_output=True, text=True
        )
        folder = Path(asked.stdout.strip())
        assert folder == modules / "Resources" / "SampleCase"
        for name, checksum in sample_entries():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == checksum


@pytest.mark.slow
def test_module_file_imports_nothing_heavy_at_its_top():
    """Reviewers of the Index allow the standard library, Slicer, vtk, SimpleITK, numpy and scipy."""
    allowed = set(sys.stdlib_module_names) | {"slicer", "vtk", "qt", "ctk", "numpy", "MRTRUSRegistrationLib"}
    for path in (MODULE_FILE, *GUI.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert {name.split(".")[0] for name in names} <= allowed, path


def test_only_the_module_and_its_gui_know_qt_and_the_application():
    for path in (MODULE / "MRTRUSRegistrationLib").rglob("*.py"):
        if path.is_relative_to(GUI):
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*import (qt|ctk)\b", text, re.MULTILINE), path
        assert not re.search(r"slicer\.(app|mrmlScene|modules|i18n)\b", text), path


def test_parameter_names_in_the_ui_are_fields():
    named = {widget_property(w, "SlicerParameterName") for w in ui_widgets()} - {None}
    assert len(named) > 15
    assert named <= parameter_fields()


def test_every_mrml_widget_hears_of_the_scene():
    widgets = {w.get("name") for w in ui_widgets() if w.get("class", "").startswith("qMRML")}
    root = ui_widgets()[0].get("name")
    connected = {
        connection.findtext("receiver")
        for connection in ElementTree.parse(UI).iter("connection")
        if connection.findtext("sender") == root
        and connection.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
        and connection.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
    }
    assert connected == widgets - {root}


def test_every_name_used_on_the_ui_exists():
    names = {w.get("name") for w in ui_widgets()}
    used = set()
    for path in (MODULE_FILE, *GUI.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r"\bui\.([A-Za-z]\w+)", text))
        used |= set(re.findall(r'"(\w+(?:Button|ComboBox|Slider|SpinBox|CheckBox|Selector|Label))"', text))
    assert len(used) > 30
    assert used <= names


def test_names_are_distinct_and_every_widget_has_one_sentence_as_tooltip():
    names = [w.get("name") for w in ui_widgets()]
    assert len(names) == len(set(names))
    for widget in ui_widgets():
        tip = widget_property(widget, "toolTip")
        if tip is None:
            plain_label = widget.get("name").startswith("label_")
            assert widget.get("class") in NEEDS_NO_TOOLTIP - {"QLabel"} or plain_label, widget.get("name")
        else:
            assert tip.endswith("."), tip
            assert ". " not in tip, tip


def test_node_types_and_parameter_names_are_not_translated():
    for widget in ui_widgets():
        for name, kind in (("nodeTypes", "stringlist"), ("SlicerParameterName", "string")):
            found = widget.find(f"property[@name='{name}']/{kind}")
            assert found is None or found.get("notr") == "true"


def test_texts_for_the_user_are_translatable():
    """`_()` gets a plain text: a format string that is filled before it is looked up is never found."""
    for path in (MODULE_FILE, *GUI.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
                assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno}"


def test_training_needs_what_it_asks_for():
    declared = re.search(
        r"^train = \[(.+)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    names = set(re.findall(r'"([\w-]+)', declared[1]))
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "MRTRUSTraining").rglob("*.py"))
    modules = {"pyyaml": "yaml", "tensorboard": "torch.utils.tensorboard"}
    for name in names:
        assert re.search(rf"^\s*(from|import) {modules.get(name, name)}\b", code, re.MULTILINE), name
    assert {name.lower() for name, purpose in _OPTIONAL.items() if purpose == "training"} <= names


def test_requirements_leave_slicers_own_packages_alone():
    text = (MODULE / "Resources" / "requirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+>=[\d.]+", line) for line in lines)
    names = {re.split(r"[>=]", line)[0].lower() for line in lines}
    assert not names & {"torch", "simpleitk", "numpy", "scipy", "monai", "slicer-core"}

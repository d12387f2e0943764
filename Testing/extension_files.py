"""Which files of the module are shipped, and the install lists that have to name them.

`python Testing/extension_files.py` writes the lists in MRTRUSRegistration/CMakeLists.txt anew.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULE = ROOT / "MRTRUSRegistration"
LISTS = MODULE / "CMakeLists.txt"
_NAME = "MRTRUSRegistration"
_SHIPPED_SUFFIXES = (".py", ".ui", ".json", ".pt", ".j2", ".css", ".png", ".txt", ".md")


def shipped_files() -> list[str]:
    """Every file that users need, relative to the module's folder; tests and build files are not."""
    folders = (MODULE / f"{_NAME}Lib", MODULE / "Resources", MODULE / "Scripts")
    found = [path for folder in folders for path in folder.rglob("*") if path.suffix in _SHIPPED_SUFFIXES]
    found += MODULE.glob("*.py")
    kept = [path for path in found if "__pycache__" not in path.parts]
    return sorted(path.relative_to(MODULE).as_posix() for path in kept)


def listed_files() -> dict[str, list[str]]:
    """The two lists of the CMake file, with the module's name put in."""
    text = LISTS.read_text(encoding="utf-8").replace("${MODULE_NAME}", _NAME)
    lists = {}
    for variable in ("MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"):
        body = re.search(rf"set\({variable}\n(.*?)\n\s*\)", text, re.DOTALL)
        lists[variable] = body[1].split() if body else []
    return lists


def is_script(path: str) -> bool:
    """Slicer compiles and installs these as Python modules; the rest are resources."""
    return path.endswith(".py") and not path.startswith("Scripts/")


def write_lists() -> None:
    """Bring the CMake file in line with the tree."""
    text = LISTS.read_text(encoding="utf-8")
    files = shipped_files()
    parts = {
        "MODULE_PYTHON_SCRIPTS": [path for path in files if is_script(path)],
        "MODULE_PYTHON_RESOURCES": [path for path in files if not is_script(path)],
    }
    for variable, paths in parts.items():
        lines = "\n".join(f"  {path.replace(_NAME, '${MODULE_NAME}')}" for path in paths)
        text = re.sub(rf"set\({variable}\n.*?\n\s*\)", f"set({variable}\n{lines}\n  )", text, flags=re.DOTALL)
    LISTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_lists()

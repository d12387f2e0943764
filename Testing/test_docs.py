"""The documentation says what is there: links, pictures, names on the panel, messages, options, citation."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "Docs"
MODULE = ROOT / "MRTRUSRegistration"
LIBRARY = MODULE / "MRTRUSRegistrationLib"
SCREENSHOTS = ROOT / "Resources" / "Screenshots"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
# Options of other programs that the pages name.
OTHERS = {
    "--additional-module-paths",
    "--no-main-window",
    "--no-splash",
    "--python-script",
    "--testing",
}
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_ANY = "…"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """A page without its blocks of code, every run of white space one space."""
    return " ".join(_FENCE.sub(" ", text_of(page)).replace("\n> ", " ").split())


def links() -> list[tuple[Path, str]]:
    found = [(page, link) for page in PAGES for link in _LINK.findall(text_of(page))]
    return [(page, link) for page, link in found if "://" not in link]


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(("page", "link"), links(), ids=lambda value: Path(value).name)
def test_links_and_pictures_lead_somewhere(page, link):
    name, _, anchor = unquote(link).partition("#")
    target = (page.parent / name).resolve() if name else page
    assert target.exists()
    assert target.is_relative_to(ROOT)
    if anchor:
        assert anchor in anchors_of(target)


def test_every_page_and_every_picture_is_linked():
    linked = {(page.parent / link.partition("#")[0]).resolve() for page, link in links()}
    assert set(DOCS.glob("*.md")) - {DOCS / "README.md"} <= linked
    assert set(SCREENSHOTS.glob("*.png")) - linked == set()


def test_the_help_of_the_module_names_pages_that_exist():
    named = re.findall(r"\{docs\}/(\w+\.md)", (MODULE / "MRTRUSRegistration.py").read_text(encoding="utf-8"))
    assert set(named) == {"tutorial.md", "troubleshooting.md", "cite.md"}
    assert all((DOCS / name).is_file() for name in named)


def test_pictures_are_small():
    sizes = {path.name: path.stat().st_size for path in SCREENSHOTS.glob("*.png")}
    assert max(sizes.values()) < 120_000, sizes
    assert sum(sizes.values()) < 1_200_000
    for path in SCREENSHOTS.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 100


@cache
def panel_texts() -> set[str]:
    """What stands on the panel: texts of the .ui file, and the entries of its lists."""
    root = ElementTree.parse(MODULE / "Resources" / "UI" / "MRTRUSRegistration.ui")
    shown = [p for p in root.iter("property") if p.get("name") in ("text", "title", "specialValueText")]
    texts = {"".join(p.itertext()).strip().rstrip(":") for p in shown}
    for name in ("choices", "methods"):
        texts |= set(strings_of(LIBRARY / "gui" / f"{name}.py"))
    return texts


@cache
def strings_of(file: Path) -> tuple[str, ...]:
    """Every string of a Python file, with "…" for what is filled in later."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(v.value if isinstance(v, ast.Constant) else _ANY for v in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(re.sub(r"\{\w*\}", _ANY, node.value))
    return tuple(found)


@pytest.mark.parametrize("name", ["tutorial", "troubleshooting"])
def test_words_in_bold_are_on_the_panel(name):
    bold = re.findall(r"\*\*(.+?)\*\*", prose_of(DOCS / f"{name}.md"))
    # In the troubleshooting a sentence in bold is a complaint, which the panel does not show.
    named = {word for word in bold if not word.endswith((".", "?"))}
    assert len(named) > 10
    assert named - panel_texts() == set()


def test_the_tutorial_visits_every_button():
    root = ElementTree.parse(MODULE / "Resources" / "UI" / "MRTRUSRegistration.ui")
    buttons = [widget for widget in root.iter("widget") if widget.get("class") == "QPushButton"]
    texts = {"".join(widget.find("property[@name='text']").itertext()).strip() for widget in buttons}
    pages = prose_of(DOCS / "tutorial.md") + prose_of(DOCS / "troubleshooting.md")
    # Those two belong to an installation; the first is also offered by Register itself.
    assert {text for text in texts - {"Install packages…"} if f"**{text}**" not in pages} == set()


def test_the_tutorial_explains_every_stage_of_a_run():
    tree = ast.parse((LIBRARY / "gui" / "register_section.py").read_text(encoding="utf-8"))
    stages = next(n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "_STAGES")
    told = [n.value for v in stages.values for n in ast.walk(v) if isinstance(n, ast.Constant)]
    assert len(told) > 5
    assert [text for text in told if f"| {text} |" not in text_of(DOCS / "tutorial.md")] == []


@cache
def messages() -> tuple[str, ...]:
    """Every sentence that the library can say."""
    return tuple(text for file in LIBRARY.rglob("*.py") for text in strings_of(file))


def quoted_messages() -> list[str]:
    return re.findall(r"^> (.+)$", text_of(DOCS / "troubleshooting.md"), re.MULTILINE)


@pytest.mark.parametrize("quoted", quoted_messages())
def test_quoted_messages_are_those_of_the_library(quoted):
    pattern = re.compile(".*".join(map(re.escape, re.split(r"…|--initial gland|\b3\b", quoted))))
    assert any(pattern.search(message) for message in messages())


def test_every_warning_is_explained():
    """The codes are the first arguments of warnings, and what ends in them for either image."""
    explained = set(re.findall(r"`(\w+)`", text_of(DOCS / "troubleshooting.md")))
    codes = {code for file in LIBRARY.rglob("*.py") for code in warning_codes(file)}
    assert len(codes) > 15
    assert codes - explained == set()


def warning_codes(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if not (named and node.func.id == "QualityWarning" and node.args):
            continue
        code = node.args[0]
        if isinstance(code, ast.Constant):
            found.add(code.value)
        elif isinstance(code, ast.JoinedStr):
            tail = code.values[-1].value
            found |= {f"{image}{tail}" for image in ("mr", "trus")}
    return found


@cache
def known_options() -> set[str]:
    """The options of every command of the project."""
    import typer.main

    from MRTRUSRegistrationLib import cli
    from MRTRUSTraining import cli as training

    cli.add_plugins()
    waiting = [typer.main.get_command(app) for app in (cli.app, training.app)]
    found = {"--help"}
    while waiting:
        command = waiting.pop()
        found |= {name for option in command.params for name in option.opts if name.startswith("--")}
        waiting += getattr(command, "commands", {}).values()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page):
    code = re.findall(r"```.*?```|`[^`]+`", text_of(page), re.DOTALL)
    named = {option for part in code for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", part)}
    assert named - known_options() - OTHERS == set()


def test_the_citation_is_valid_and_names_this_version():
    entry = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(entry)
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert entry["version"] == version
    assert f"version {version}" in prose_of(DOCS / "cite.md")
    for reference in entry["references"]:
        assert {"type", "title", "authors"} <= set(reference)
        assert all({"family-names", "given-names"} <= set(author) for author in reference["authors"])
        address = reference.get("url") or f"https://doi.org/{reference['doi']}"
        assert address in text_of(DOCS / "cite.md")

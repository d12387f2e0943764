"""The viewer served by its own command, and a real Chromium that looks at it."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SIZE = {"width": 1280, "height": 800}
# Generous: tests share their machine.
PATIENCE_MS = 120_000
_FOUR_PICTURES = """() => [...document.querySelectorAll('.layout-grid-item img')]
    .filter((image) => image.naturalWidth > 100).length >= 4"""
# What the page asks is answered in its order, so that an answer tells that the changes before it were shown.
_SETTLE = """async () => {
    for (let n = 0; n < 4; n++) {
        await window.trame.trigger("key", [""]);
        await new Promise((resolve) => setTimeout(resolve, 60));
    }
    const shown = () => [...document.querySelectorAll('.layout-grid-item img')].map((i) => i.src).join();
    let last = shown(), since = performance.now();
    while (performance.now() - since < 500) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        if (shown() !== last) { last = shown(); since = performance.now(); }
    }
}"""


def chromium_path() -> str | None:
    """The browser of the system; `MRTRUS_CHROMIUM` names another."""
    found = os.environ.get("MRTRUS_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    return str(found) if found else None


@contextmanager
def served(*arguments: str | Path) -> Iterator[str]:
    """`mrtrus view` on a free port; gives its address."""
    command = [sys.executable, "-m", "MRTRUSRegistrationLib", "view", *map(str, arguments)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--no-browser"], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address is not None, line
        yield address.group()
    finally:
        process.terminate()
        process.wait(timeout=30)


@dataclass
class Visitor:
    """A tab with the viewer; `problems` are what the page threw."""

    page: Any
    problems: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, browser: Any, address: str, size: dict[str, int] = SIZE) -> Visitor:
        visitor = cls(browser.new_page(viewport=size, accept_downloads=True))
        visitor.page.set_default_timeout(PATIENCE_MS)
        visitor.page.on("pageerror", lambda error: visitor.problems.append(str(error)))
        visitor.page.goto(address)
        visitor.page.wait_for_function(_FOUR_PICTURES)
        return visitor

    def get(self, name: str) -> Any:
        """A value of the page's state."""
        return self.page.evaluate("(name) => window.trame.state.get(name)", name)

    def set(self, **values: Any) -> None:
        """Set values as the widgets of the page do, and wait for the pictures that follow."""
        for name, value in values.items():
            self.page.evaluate("([name, value]) => window.trame.state.set(name, value)", [name, value])
        self.settle()

    def wait(self, condition: str) -> None:
        """Wait for a condition on the state, which is called `state` in it."""
        self.page.wait_for_function(
            f"() => {{ const state = window.trame?.state?.state; return state && ({condition}); }}"
        )

    def settle(self) -> None:
        """Wait until the server has done what it was asked, and its pictures have come to rest."""
        self.page.evaluate(_SETTLE)

    def view(self, number: int = 0) -> np.ndarray:
        """(row, column, 3) pixels of a view: 0 axial, 1 3-D, 2 coronal, 3 sagittal."""
        return pixels(self.page.locator(".layout-grid-item img").nth(number).screenshot())

    def open_panels(self, *keys: str) -> None:
        self.set(open_panels=list(keys))

    def stroke(self, start: tuple[float, float], end: tuple[float, float], number: int = 0) -> None:
        """Drag in a view, from and to fractions of its width and height."""
        box = self.page.locator(".layout-grid-item img").nth(number).bounding_box()
        first, last = ((box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end))
        self.page.mouse.move(*first)
        self.page.mouse.down()
        self.page.mouse.move(*last, steps=10)
        self.page.mouse.up()
        self.settle()

    def close(self) -> None:
        self.page.close(run_before_unload=False)


def pixels(png: bytes) -> np.ndarray:
    """(row, column, 3) float pixels of a PNG."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference of two pictures of the same size, in grey levels."""
    return float(np.abs(first - second).mean())

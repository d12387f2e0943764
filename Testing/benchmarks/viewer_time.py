"""Times of the viewer in a real Chromium: first picture, next frame after a step, a further visitor's memory.

`python Testing/benchmarks/viewer_time.py RESULT [--steps 15]`: RESULT is a result folder or a scene. Quote it
for an idle machine; a frame is the time from a step on the page to the next picture of the axial view there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from viewer_browser import ARGUMENTS, Visitor, chromium_path, served

# A step, then the time until the axial view shows another picture.
_NEXT_FRAME = """([name, value]) => new Promise((resolve) => {
    const image = document.querySelector('.layout-grid-item img');
    const last = image.src, start = performance.now();
    const look = () => image.src !== last ? resolve(performance.now() - start) : setTimeout(look, 2);
    window.trame.state.set(name, value);
    look();
})"""


def frame_ms(visitor: Visitor, name: str, value: Callable[[int], object], steps: int) -> dict[str, float]:
    """Median and slowest of the frames after `steps` values of a name of the page's state."""
    times = []
    for step in range(steps):
        visitor.settle()
        times.append(float(visitor.page.evaluate(_NEXT_FRAME, [name, value(step)])))
    return {"median_ms": round(statistics.median(times)), "slowest_ms": round(max(times))}


def sessions_mb() -> list[int]:
    """Unique memory of every visitor's process: what would be free without it."""
    found = [
        process
        for process in psutil.Process().children(recursive=True)
        if "MRTRUSViewer.session" in process.cmdline()
    ]
    return sorted(round(process.memory_full_info().uss / 1e6) for process in found)


def measured(data: Path, steps: int) -> dict[str, object]:
    start = time.perf_counter()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium_path(), args=list(ARGUMENTS))
        ready = time.perf_counter()
        with served(data) as address:
            visitor = Visitor.open(browser, address)
            figures: dict[str, object] = {"first_picture_s": round(time.perf_counter() - ready, 1)}
            figures["browser_start_s"] = round(ready - start, 1)
            middle = float(visitor.get("slice_axial_value"))
            figures["blend"] = frame_ms(visitor, "review_opacity", lambda n: 0.2 + 0.04 * (n % 15), steps)
            figures["scroll"] = frame_ms(visitor, "slice_axial_value", lambda n: middle + 1 + n % 9, steps)
            visitor.set(review_mode="checkerboard")
            figures["checkerboard"] = frame_ms(visitor, "review_squares", lambda n: 4 + n % 9, steps)
            further = Visitor.open(browser, address)
            further.settle()
            figures["visitors_mb"] = sessions_mb()
            further.close()
            visitor.close()
        browser.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=15)
    options = parser.parse_args()
    print(json.dumps(measured(options.data, options.steps), indent=1))


if __name__ == "__main__":
    main()

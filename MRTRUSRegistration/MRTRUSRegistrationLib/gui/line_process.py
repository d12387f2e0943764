"""A child process whose output lines are collected without blocking. No Qt, no Slicer."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Sequence
from typing import Any


class LineProcess:
    """Runs a command in a session of its own; `poll` never waits."""

    def __init__(self, command: Sequence[str], *, environment: dict[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self._queue: queue.Queue[str] = queue.Queue()
        self._process = subprocess.Popen(
            list(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            text=True,
            encoding="utf-8",
            errors="replace",
            **_own_group(),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:  # type: ignore[union-attr]
            self._queue.put(line.rstrip())

    def poll(self) -> list[str]:
        """The lines since the last call."""
        fresh: list[str] = []
        while True:
            try:
                fresh.append(self._queue.get_nowait())
            except queue.Empty:
                break
        self.lines += fresh
        return fresh

    @property
    def exit_code(self) -> int | None:
        """`None` while the command runs or lines of it are still to be read."""
        code = self._process.poll()
        return None if code is None or self._reader.is_alive() else code

    def kill(self) -> None:
        """End the command and its children."""
        if self._process.poll() is not None:
            return
        if os.name == "nt":
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(self._process.pid)], capture_output=True)
        else:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _own_group() -> dict[str, Any]:
    """Options that let the children be found and ended with the command."""
    if os.name == "nt":
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    return {"start_new_session": True}

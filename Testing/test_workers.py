"""Processes that make cases: Ctrl+C is for the one that started them, never lost, and ends them at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing

import pytest

from MRTRUSRegistrationLib.errors import RegistrationError
from MRTRUSTraining.workers import Workers, ctrl_c_held


@pytest.fixture
def settings_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    yield
    assert (signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, [])) == before


def _hears_ctrl_c() -> tuple[bool, bool]:
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    return not blocked, signal.getsignal(signal.SIGINT) != signal.SIG_IGN


@pytest.mark.usefixtures("settings_as_before")
def test_ctrl_c_that_comes_meanwhile_takes_effect_at_the_end() -> None:
    done = []

    def work() -> None:
        with ctrl_c_held():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("the work")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["the work"]


@pytest.mark.usefixtures("settings_as_before")
def test_where_none_comes_nothing_happens() -> None:
    with ctrl_c_held():
        pass


@pytest.mark.usefixtures("settings_as_before")
def test_workers_never_hear_it_and_say_what_they_found() -> None:
    with closing(Workers(1)) as workers:
        assert workers.submit(_hears_ctrl_c).result(timeout=60) == (False, False)
        assert workers.submit(divmod, 7, 2).result(timeout=60) == (3, 1)


@pytest.mark.usefixtures("settings_as_before")
def test_closing_does_not_wait_for_what_is_begun() -> None:
    workers = Workers(1)
    sleeping = workers.submit(time.sleep, 300)
    waiting = [workers.submit(time.sleep, 300) for _ in range(5)]
    while not sleeping.running():
        time.sleep(0.05)
    begun = time.monotonic()
    workers.close()
    assert time.monotonic() - begun < 20
    for future in (sleeping, *waiting):
        with pytest.raises((BrokenProcessPool, CancelledError)):
            future.result(timeout=1)


@pytest.mark.usefixtures("settings_as_before")
def test_a_worker_that_was_ended_from_outside_is_one_sentence() -> None:
    with closing(Workers(1)) as workers, closing(Workers(1)) as others:
        kept = others.submit(divmod, 7, 2)
        killed = workers.submit(os.kill, workers.submit(os.getpid).result(timeout=60), signal.SIGKILL)
        with pytest.raises(RegistrationError, match="ended from outside"):
            workers.result(killed)
        with pytest.raises(RegistrationError, match="use fewer"):
            workers.submit(os.getpid)
        workers.close()
        assert others.result(kept) == (3, 1)
        assert others.result(others.submit(divmod, 9, 2)) == (4, 1)

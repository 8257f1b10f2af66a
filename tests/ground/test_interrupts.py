"""Ctrl-C in imports and callbacks: passed on, and nothing else taken for it."""

from __future__ import annotations

import gc
import itertools
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.interrupts import import_interrupted, interrupt_held, no_interrupt_lost, pass_on_interrupt


@pytest.fixture(autouse=True)
def interrupts_end() -> Iterator[None]:
    """Python's own handler, whatever was there before."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def raised(*chain: BaseException, cause: bool = True) -> BaseException:
    """The last of the errors, each raised from, or only while handling, the one before."""
    for before, error in itertools.pairwise(chain):
        if cause:
            error.__cause__ = before
        else:
            error.__context__ = before
    return chain[-1]


@pytest.mark.parametrize(
    "chain",
    [
        (KeyboardInterrupt(), ImportError("initialization failed")),
        (KeyboardInterrupt(), ImportError("_structs"), ImportError("_callbacks"), SpikerlError("no MuJoCo")),
    ],
)
def test_an_import_that_an_interrupt_broke_off_is_found_below_what_came_of_it(chain: tuple[BaseException, ...]) -> None:
    assert import_interrupted(raised(*chain))
    with pytest.raises(KeyboardInterrupt):
        pass_on_interrupt(raised(*chain))


@pytest.mark.parametrize(
    "error",
    [
        ImportError("no module"),
        raised(OSError("no library"), ImportError("no module"), SpikerlError("no MuJoCo")),
        raised(KeyboardInterrupt(), SpikerlError("no space to save")),
        raised(KeyboardInterrupt(), ImportError("what saves is not installed"), cause=False),
    ],
)
def test_nothing_else_is_taken_for_one(error: BaseException) -> None:
    assert not import_interrupted(error)
    pass_on_interrupt(error)


def test_a_ring_of_causes_comes_to_an_end() -> None:
    first, second = SpikerlError("first"), ImportError("second")
    first.__cause__, second.__cause__ = second, first
    assert not import_interrupted(first)


def test_an_interrupt_is_held_to_the_end_of_the_block_and_handled_as_before() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):
        with interrupt_held():
            signal.raise_signal(signal.SIGINT)
            done.append("block")
        done.append("after")
    assert done == ["block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_block_is_not_lost_below_no_interrupt() -> None:
    with pytest.raises(ImportError, match="no module"), interrupt_held():
        raise ImportError("no module")


def test_a_thread_may_hold_interrupts_too_which_never_come_to_it() -> None:
    ran = []

    def work() -> None:
        with interrupt_held():
            ran.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [signal.getsignal(signal.SIGINT)]


def test_where_interrupts_are_ignored_they_stay_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupt_held():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


class Told:
    """Raises when it is collected, where Python can only report it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error


def test_an_interrupt_lost_in_a_callback_is_sent_once_more() -> None:
    with pytest.raises(KeyboardInterrupt), no_interrupt_lost():
        Told(KeyboardInterrupt())
        gc.collect()
        threading.Event().wait(10)


def test_other_errors_of_callbacks_go_to_the_hook_that_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException | None] = []
    hook: Callable[[sys.UnraisableHookArgs], None] = lambda lost: told.append(lost.exc_value)  # noqa: E731
    monkeypatch.setattr(sys, "unraisablehook", hook)
    with no_interrupt_lost():
        Told(ValueError("told"))
        gc.collect()
    assert [str(error) for error in told] == ["told"]
    assert sys.unraisablehook is hook

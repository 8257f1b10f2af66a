"""Ctrl-C that Python, or a library, would lose or tell as another fault."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN_S = 0.05  # until an interrupt that was lost is sent once more: the callback that lost it must have returned


def import_interrupted(error: BaseException) -> bool:
    """Whether what went wrong began with Ctrl-C in an import.

    Extension modules built with pybind11 raise an ImportError from it, and libraries say of that that a package is
    missing.
    """
    link: BaseException | None = error
    seen: set[int] = set()  # a chain may be a ring
    while link is not None and id(link) not in seen:
        if isinstance(link, ImportError) and isinstance(link.__cause__, KeyboardInterrupt):
            return True
        seen.add(id(link))
        link = link.__context__ if link.__cause__ is None else link.__cause__
    return False


def pass_on_interrupt(error: BaseException) -> None:
    """For whoever goes on after an error of any kind: not if it began with Ctrl-C in an import.

    Raises:
        KeyboardInterrupt: it did.
    """
    if import_interrupted(error):
        raise KeyboardInterrupt from error


@contextmanager
def interrupt_held() -> Iterator[None]:
    """Hold Ctrl-C back until the end of a block, for imports that catch it or that cannot be begun twice."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread only
        return
    held: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def no_interrupt_lost() -> Iterator[None]:
    """Within it Ctrl-C that comes in a callback of Python's, as each import makes some, is sent once more."""
    told = sys.unraisablehook

    def tell(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
            again.daemon = True
            again.start()
        else:
            told(lost)

    sys.unraisablehook = tell
    try:
        yield
    finally:
        sys.unraisablehook = told

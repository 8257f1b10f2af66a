"""Fixtures that several folders of tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support import ASSETS

from simulators.lava.install import ensure_installed

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def lava_folder() -> Path:
    """Folder of the installed Lava wheel; installed now if it is not there. A failure here is a failure."""
    return ensure_installed(allowed=True, wheel=None, say=print)


@pytest.fixture(scope="session")
def double_pendulum() -> Path:
    """A trained 8-bit policy for InvertedDoublePendulum-v5, made by `make double-pendulum`."""
    return ASSETS / "inverted-double-pendulum.nir"

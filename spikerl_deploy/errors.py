"""The one error type that reaches a user: a line that says what is wrong, and a hint."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_LISTED = 24  # names that an error spells out


class SpikerlError(Exception):
    """Usage, configuration or input error.

    Args:
        message: one line that names the offending value.
        hint: one action that mends it, runnable where possible.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CheckFailed(SpikerlError):
    """A check that the user asked for did not hold (exit code 1)."""

    exit_code = 1


def error_lines(message: str, hint: str | None = None) -> str:
    """What a command prints on stderr of an error: a line, and one with the hint if there is one."""
    return f"Error: {message}" + (f"\nHint: {hint}" if hint else "")


def unknown(kind: str, value: str, known: Iterable[str], hint: str | None = None) -> SpikerlError:
    """Error for an unknown name: lists what there is and suggests the nearest."""
    names = sorted(known)
    near = difflib.get_close_matches(value, names, n=1)
    many = len(names) > MAX_LISTED
    listed = f"{len(names)} names" if many else ", ".join(names)
    hints = [f"did you mean '{near[0]}'?"] if near else []
    if hint is not None and (many or not near):
        hints.append(f"see: {hint}" if near else hint)
    return SpikerlError(f"unknown {kind} '{value}'; there is: {listed}", " ".join(hints) or None)


class RankLost(SpikerlError):
    """Another rank of a distributed run is gone, which says why itself; the exit code tells a launcher so."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class CannotWrite(SpikerlError):
    """A file could not be written: no space, no right."""

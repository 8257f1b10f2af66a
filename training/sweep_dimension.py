"""One searched setting of a sweep: a range or choices, checked against the type and the range of the setting."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from spikerl_deploy.errors import SpikerlError, unknown
from training.settings import Settings

EXAMPLE = "{low = 1, high = 9} or {choices = [1, 9]}"
# what a trial is measured by; trials that differ in it cannot be compared
MEASURE = ("env", "steps", "seed", "seeds", "stop_return", "eval_every", "eval_episodes", "eval_seed")
# where a trial runs and what it keeps; a sweep may go on elsewhere
MACHINE = (
    *("device", "threads", "env_workers", "compile", "cuda_graphs", "dist_backend"),
    *("tensorboard", "carbon", "country", "carbon_intensity", "checkpoint_every", "save_replay"),
)
KINDS = {item.name: item.metadata["kind"] for item in fields(Settings)}


@dataclass(frozen=True)
class Dimension:
    """A searched setting: a range with both ends included, or choices; the values are of the setting's type."""

    name: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def document(self) -> dict[str, Any]:
        """The dimension as the space file has it; sequences become lists."""
        if self.choices:
            return {"choices": [list(value) if isinstance(value, tuple) else value for value in self.choices]}
        entry = {"low": self.low, "high": self.high, "step": self.step, "log": self.log or None}
        return {key: value for key, value in entry.items() if value is not None}

    def categories(self) -> list[Any]:
        """The choices as Optuna can store them: a sequence becomes its JSON text, which the setting reads back."""
        return [json.dumps(list(value)) if isinstance(value, tuple) else value for value in self.choices]

    def grid(self) -> list[Any]:
        """Every value, in order.

        Raises:
            SpikerlError: a range without steps, or on a logarithmic scale.
        """
        if self.choices:
            return self.categories()
        if self.log or self.step is None or self.low is None or self.high is None:
            raise SpikerlError(
                f"sampler 'grid' cannot enumerate [space] {self.name} = {self.document()}",
                f"give {self.name} a step or choices, or take sampler = 'random'",
            )
        count = round((self.high - self.low) / self.step)
        return [self.low + index * self.step for index in range(count + 1)]


def check_names(what: str, names: Iterable[str], known: Collection[str], hint: str = "see docs/sweep.md") -> None:
    """Refuse the first name that is not known, with the nearest that is."""
    for name in names:
        if name not in known:
            raise unknown(what, name, known, hint)


def read_dimension(name: str, entry: Any, base: Settings) -> Dimension:
    """Check an entry of [space] against the setting's type and range; `base` holds the other settings.

    Raises:
        SpikerlError: it is neither a range nor choices, or holds a value that the setting refuses.
    """
    if name in MEASURE or name in MACHINE:
        why = (
            "it decides how a trial is measured"
            if name in MEASURE
            else "it decides where a trial runs or what it keeps"
        )
        raise SpikerlError(f"[space] {name} cannot be searched: {why}", f"fix {name} in [settings], or leave it out")
    if not isinstance(entry, dict):
        raise SpikerlError(f"[space] {name} = {entry!r} is neither a range nor choices", f"{name} = {EXAMPLE}")
    check_names(f"key of [space] {name}", entry, ("low", "high", "step", "log", "choices"))
    if "choices" in entry:
        return _choices(name, entry, base)
    kind = KINDS[name]
    if kind not in (int, float):
        raise SpikerlError(
            f"[space] {name} = {entry} is a range, but the setting is no number", f"{name} = {{choices = [...]}}"
        )
    for end in ("low", "high"):
        if end not in entry:
            raise SpikerlError(f"[space] {name} = {entry} lacks '{end}'", f"{name} = {EXAMPLE}")
    low, high = (_value(name, entry[end], base) for end in ("low", "high"))
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise SpikerlError(f"[space] {name}: log = {log!r} is not true or false", "log = true")
    if low >= high:
        raise SpikerlError(f"[space] {name}: low {low!r} is not below high {high!r}", "fix one value in [settings]")
    if log and low <= 0:
        raise SpikerlError(f"[space] {name}: low {low!r} has no logarithm", "give a low above 0, or leave out log")
    step = entry.get("step", 1 if kind is int and not log else None)
    if step is None:
        return Dimension(name, low, high, None, log)
    number = isinstance(step, int) or (kind is float and isinstance(step, float) and math.isfinite(step))
    if not number or isinstance(step, bool) or step <= 0:
        wanted = "a positive integer" if kind is int else "a positive number"
        raise SpikerlError(f"[space] {name}: step = {step!r} is not {wanted}", "leave out step, or mend it")
    if log:
        raise SpikerlError(f"[space] {name}: step {step!r} and log exclude each other", "leave out one of them")
    count = (high - low) / step
    if abs(count - round(count)) > 1e-6:
        last = low + math.floor(count) * step
        raise SpikerlError(
            f"[space] {name}: high {high!r} is no whole number of steps {step!r} above low {low!r}", f"high = {last!r}"
        )
    return Dimension(name, low, high, kind(step), log)


def _choices(name: str, entry: dict[str, Any], base: Settings) -> Dimension:
    choices = entry["choices"]
    if len(entry) > 1:
        other = next(key for key in entry if key != "choices")
        raise SpikerlError(f"[space] {name}: choices and {other} exclude each other", f"{name} = {EXAMPLE}")
    if not isinstance(choices, list) or not choices:
        raise SpikerlError(f"[space] {name}: choices = {choices!r} is no list of values", f"{name} = {EXAMPLE}")
    values = []
    for choice in choices:
        value = _value(name, choice, base, numbers_only=False)
        if value in values:
            raise SpikerlError(f"[space] {name}: choice {choice!r} is there twice", "leave out one of them")
        values.append(value)
    return Dimension(name, choices=tuple(values))


def _value(name: str, value: Any, base: Settings, numbers_only: bool = True) -> Any:
    """The value as the setting holds it, or the setting's own refusal."""
    if numbers_only and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise SpikerlError(f"[space] {name}: {value!r} is no number", f"{name} = {EXAMPLE}")
    try:
        return getattr(replace(base, **{name: value}), name)
    except SpikerlError as error:
        raise SpikerlError(f"[space] {name}: {error.message}", "see: spikerl train --list-settings") from error

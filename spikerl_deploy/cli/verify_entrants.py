"""Who takes part in `spikerl verify`: backends by name, and the integers of a netx file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikerl_deploy.errors import SpikerlError, unknown

if TYPE_CHECKING:
    from simulators.protocol import Backend
    from simulators.verify import Entrant, Row, Tolerance
    from spikerl_deploy.policy import Policy

ALL, NETX = "all", "netx"
AS_TRAINED = "torch, as trained"


def known_names() -> list[str]:
    """Names that --backends takes, beside `all`."""
    from simulators.registry import backend_names

    return sorted({*backend_names(), NETX})


def parse_names(given: str) -> list[str]:
    """The names in a list with commas; `all` stands for all of them.

    Raises:
        SpikerlError: an unknown name, one that is given twice, or none.
    """
    if given == ALL:
        return known_names()
    names = [name.strip() for name in given.split(",")]
    if ALL in names:
        raise SpikerlError(f"--backends {given}: '{ALL}' stands alone", "--backends all")
    for name in names:
        if name not in known_names():
            raise unknown("backend", name, [*known_names(), ALL], "spikerl backends list")
        if names.count(name) > 1:
            raise SpikerlError(f"--backends names '{name}' twice", "leave one out")
    return names


def reference_of(policy: Policy, options: dict[str, Any]) -> Entrant:
    """What the others are held against: the integers of a quantized policy, the floats in torch of another."""
    from simulators.registry import make_backend
    from simulators.verify import EXACT

    name = "torch" if policy.integers is None else "fixed"
    backend = make_backend(name, **options, weights="graph")
    backend.check(policy)
    return _entrant(name, backend, policy, EXACT)


def find_entrants(
    names: Sequence[str],
    policy: Policy,
    options: dict[str, Any],
    adjust: Callable[[Tolerance], Tolerance],
    optional: bool,
) -> tuple[list[Entrant], list[Row]]:
    """Entrants of these names, without the reference, and rows of those that are skipped.

    Args:
        options: of backends. adjust: gives the tolerance to use for the stated one.
        optional: whether what cannot run is skipped.

    Raises:
        SpikerlError: not `optional`, and one of them cannot run.
    """
    from simulators.verify import skipped

    reference = "torch" if policy.integers is None else "fixed"
    entrants, skips = list[Any](), list[Any]()
    for name in names:
        try:
            if name == NETX:
                entrants.append(_netx(policy))
            elif name != reference:
                entrants.append(_registered(name, policy, options, adjust, optional))
            if name == "torch" and policy.trained is not None:
                entrants.append(_as_trained(policy, options))
        except SpikerlError as error:
            if not optional:
                raise
            skips.append(skipped(name, error.message, error.hint))
    return entrants, skips


def _entrant(name: str, backend: Backend, policy: Policy, tolerance: Tolerance | None) -> Entrant:
    from simulators.verify import Entrant

    return Entrant(name, backend.runs(policy), tolerance, lambda batch: backend.open(policy, batch))


def _registered(
    name: str, policy: Policy, options: dict[str, Any], adjust: Callable[[Tolerance], Tolerance], optional: bool
) -> Entrant:
    from simulators.registry import availability_of, backend_options, make_backend
    from simulators.verify import tolerance_of

    backend = make_backend(name, **options, weights="graph")
    backend.check(policy)
    state = availability_of(name, backend)
    installs_itself = "install" in backend_options(name) and options["install"]
    if not state.ready and (optional or not installs_itself):
        raise SpikerlError(f"backend '{name}' cannot run here: {state.detail}", state.hint or "spikerl backends list")
    return _entrant(name, backend, policy, adjust(tolerance_of(policy, backend.exactness)))


def _as_trained(policy: Policy, options: dict[str, Any]) -> Entrant:
    from simulators.registry import make_backend

    return _entrant(AS_TRAINED, make_backend("torch", **options), policy, None)


def _netx(policy: Policy) -> Entrant:
    """The integers as a netx file has them: written, read back, and executed like `fixed` executes its own."""
    from exporters.netx import export_netx
    from exporters.netx_reader import read_netx
    from simulators.netx_session import NetxSession
    from simulators.verify import EXACT, Entrant

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.net"
        export_netx(policy, path)
        network = read_netx(path)
    sizes = "-".join(str(size) for size in (network.channels.size, *(len(one) for one in network.neurons)))
    return Entrant(
        NETX,
        f"netx file, {sizes}, written, read back and run by fixed",
        EXACT,
        lambda batch: NetxSession(policy, batch, network.layers, network.channels, network.neurons),
    )


def adjusted(mismatches: float | None, action_error: float | None) -> Callable[[Tolerance], Tolerance]:
    """Replaces what a user bounds otherwise; what is exact stays exact."""

    def adjust(tolerance: Tolerance) -> Tolerance:
        if tolerance.exact:
            return tolerance
        given: dict[str, Any] = {"mismatch_share": mismatches, "action_error": action_error}
        return replace(tolerance, **{name: value for name, value in given.items() if value is not None})

    return adjust

"""`spikerl run`: execute a NIR graph on a backend, input spikes in, output spikes and recorded states out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikerl_deploy.cli.backend_flags import (
    DeviceOption,
    NoInstallOption,
    TimeoutOption,
    WheelOption,
    given_options,
    refuse_untaken,
)
from spikerl_deploy.cli.common import (
    ForceOption,
    Format,
    FormatOption,
    GraphArgument,
    complete_backend,
    console,
    print_json,
    say,
)
from spikerl_deploy.errors import MAX_LISTED, SpikerlError

if TYPE_CHECKING:
    import nir
    from numpy.typing import NDArray

    from simulators.protocol import Backend, GraphRecord
    from spikerl_deploy.loihi import IntegerLayer
    from spikerl_deploy.nir_order import OrderedGraph

HINT = "docs/semantics.md says what a graph may hold, and which backend runs what"
GRAPH_HINT = "give a NIR file: spikerl run GRAPH.nir --input spikes.npz --dt 1e-4 -o out.npz"


def run(
    graph_file: GraphArgument,
    input_file: Annotated[
        Path, typer.Option("--input", help="File (.npz) with an array 'spikes' [T, ...input shape].")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="File (.npz) that takes 'output' and what is recorded.")],
    dt: Annotated[
        float | None, typer.Option("--dt", help="Seconds a time step; a policy file has its own.", show_default=False)
    ] = None,
    backend: Annotated[str, typer.Option(help="Where to run it.", autocompletion=complete_backend)] = "torch",
    record: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE", help="Record a node's spikes and voltages, as NODE.spikes and NODE.v; repeatable."
        ),
    ] = None,
    count: Annotated[
        bool, typer.Option("--count", help="Count synaptic operations and neuron updates, connection by connection.")
    ] = False,
    rounding: Annotated[
        bool, typer.Option("--round", help="Round what has no exact integers, and report by how much.")
    ] = False,
    device: DeviceOption = "auto",
    no_install: NoInstallOption = False,
    wheel: WheelOption = None,
    worker_timeout: TimeoutOption = 60.0,
    force: ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan only.")] = False,
    output: FormatOption = Format.human,
) -> None:
    """Run a NIR graph by forward Euler on a backend; docs/semantics.md says what each node does where."""
    from simulators.graph_files import write_record
    from spikerl_deploy.cli.run_count import count_record, make_plan
    from spikerl_deploy.files import check_targets

    options = {
        "rounding": rounding, "device": device, "timeout": worker_timeout, "install": not no_install, "wheel": wheel,
    }  # fmt: skip
    chosen = _backend(backend, options)
    graph, dt, integers = _read(graph_file, dt)
    ordered, spikes, names = _check(graph, dt, input_file, record or [], chosen.exactness == "integer")
    check_targets([("-o", out)], force, {"graph": graph_file, "input": input_file})
    if dry_run:  # run_graph finds the same out, before it runs anything
        with _hinted(HINT):
            chosen.check_graph(graph, dt, integers)
    with _hinted(HINT):
        plan = make_plan(chosen, ordered, rounding, integers) if count else None
    document: dict[str, Any] = {
        "schema": "spikerl.run/1",
        "graph": str(graph_file),
        "input": str(input_file),
        "file": None if dry_run else str(out),
        "backend": chosen.name,
        "exactness": chosen.exactness,
        "dt_s": dt,
        "time_steps": len(spikes),
        "input_shape": list(ordered.input_shape),
        "output_shape": list(ordered.shapes[ordered.output]),
        "output_spikes": None,
        "recorded": dict.fromkeys(names),
        "rounding": None,
        "operations": None,
    }
    if not dry_run:
        with _hinted(HINT):
            recorded = names if plan is None else tuple(dict.fromkeys((*names, *plan.spiking)))
            result = chosen.run_graph(graph, spikes, dt, recorded, integers)
        if plan is not None:
            result, document["operations"] = count_record(plan, spikes, result, names)
        document |= _results(result, names, getattr(chosen, "rounded", None) if rounding else None)
        write_record(result, out, force)
    if output is Format.json:
        print_json(document)
    else:
        _print(document)
    if not dry_run:
        say(f"result: {out}")


def _backend(name: str, options: dict[str, Any]) -> Backend:
    """The backend with the options that it takes; one that was given and that it does not take is refused."""
    from simulators.registry import availability_of, backend_options, make_backend

    taken = backend_options(name)
    refuse_untaken(given_options(options), [name], taken)
    made = make_backend(name, **options, say=say)
    state = availability_of(name, made)
    if not state.ready and not (options["install"] and "install" in taken):
        raise SpikerlError(f"backend '{name}' cannot run here: {state.detail}", state.hint)
    return made


def _read(path: Path, dt: float | None) -> tuple[nir.NIRGraph, float, tuple[IntegerLayer, ...] | None]:
    """The graph, its time step in seconds, and the integers of a quantized policy file."""
    from spikerl_deploy.nir_file import read_graph
    from spikerl_deploy.policy import is_positive_scalar
    from spikerl_deploy.policy_file import policy_from_graph

    if dt is not None and not is_positive_scalar(dt):
        raise SpikerlError(f"--dt {dt:g} is not a positive time step in seconds", "--dt 1e-4")
    if not path.is_file():
        raise SpikerlError(f"no NIR file at '{path}'", GRAPH_HINT)
    graph = read_graph(path, GRAPH_HINT)
    if "spikerl.format" not in graph.metadata:
        if dt is None:
            raise SpikerlError(
                f"'{path}' is no policy file and does not say its time step", "give it in seconds, such as --dt 1e-4"
            )
        return graph, dt, None
    policy = policy_from_graph(graph, str(path))
    if dt is not None and not math.isclose(dt, policy.dt, rel_tol=1e-6):
        raise SpikerlError(f"--dt {dt:g} is not the policy's time step, {policy.dt:g} s", "leave --dt out")
    return graph, policy.dt, policy.integers


def _check(
    graph: nir.NIRGraph, dt: float, input_file: Path, record: list[str], binary: bool
) -> tuple[OrderedGraph, NDArray[Any], tuple[str, ...]]:
    """The graph in its order, input that it takes, and the nodes to record: what is wrong is said before it runs."""
    from simulators.graph_files import INPUT_HINT, read_spikes
    from spikerl_deploy.nir_order import check_input, check_record, order_graph
    from spikerl_deploy.nir_shapes import NEURONS

    with _hinted(HINT):
        ordered = order_graph(graph, dt)
    neurons = [name for name, node in ordered.nodes.items() if isinstance(node, NEURONS)]
    with _hinted(f"--record NODE, one of: {', '.join(neurons[:MAX_LISTED])}"):
        names = check_record(ordered, record)
    spikes = read_spikes(input_file)
    with _hinted(INPUT_HINT):
        return ordered, check_input(ordered, spikes, binary), names


@contextmanager
def _hinted(hint: str) -> Iterator[None]:
    """An error that brings no hint of its own gets this one."""
    try:
        yield
    except SpikerlError as error:
        error.hint = error.hint or hint
        raise


def _results(result: GraphRecord, names: Sequence[str], rounding: Any) -> dict[str, Any]:
    recorded: dict[str, Any] = {}
    for name in names:
        raster, voltage = result.spikes.get(name), result.voltages.get(name)
        low, high = _extremes(name, voltage)
        recorded[name] = {"spikes": int(raster.sum()) if raster is not None else None, "v_min": low, "v_max": high}
    spikes = int(result.output.sum()) if result.output.dtype == bool else None
    if spikes is None:
        _extremes("output", result.output)
    return {"output_spikes": spikes, "recorded": recorded, "rounding": rounding}


def _extremes(name: str, values: NDArray[Any] | None) -> tuple[float | None, float | None]:
    """Least and largest value; None for what JSON cannot hold, which is said."""
    if values is None:
        return None, None
    low, high = (float(value) if math.isfinite(value) else None for value in (values.min(), values.max()))
    if low is None or high is None:
        say(f"{name}: values overflowed, they are not finite everywhere")
    return low, high


def _print(document: dict[str, Any]) -> None:
    from spikerl_deploy.cli.run_count import print_operations

    done = document["file"] is not None
    lines = [
        f"{'ran' if done else 'would run'} {document['graph']} on {document['backend']}: {document['time_steps']} time "
        f"steps of {document['dt_s']:g} s, input {document['input_shape']}, output {document['output_shape']}"
    ]
    if document["output_spikes"] is not None:
        lines.append(f"output: {document['output_spikes']} spikes")
    for name, entry in document["recorded"].items():
        said = [] if entry is None or entry["spikes"] is None else [f"{entry['spikes']} spikes"]
        if entry is not None and entry["v_min"] is not None and entry["v_max"] is not None:
            said.append(f"v from {entry['v_min']:.6g} to {entry['v_max']:.6g}")
        lines.append(f"{name}: {', '.join(said) or 'to be recorded'}")
    lines += [f"{name}: rounded by at most {error:.2%}" for name, error in (document["rounding"] or {}).items()]
    for line in lines:
        console().print(line, soft_wrap=True)
    if document["operations"] is not None:
        print_operations(document["operations"])

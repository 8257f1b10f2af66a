"""The table of docs/semantics.md, cell by cell: what is honoured agrees with NIR's definition, the rest is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from nir_definition import run_definition
from support import ROOT

from simulators import graph_run
from simulators.lava.client import WorkerClient
from simulators.lava.graph_client import run_on
from simulators.protocol import Backend, GraphRecord
from simulators.registry import BUILT_IN, backend_class, make_backend
from spikerl_deploy.errors import SpikerlError

DT = 1e-4
TIME_STEPS = 24
STEP = 1.0 / DT


def full(shape: tuple[int, ...], value: float) -> np.ndarray:
    return np.full(shape, value, dtype=np.float64)


def weights(*shape: int, low: int = -3, high: int = 8) -> np.ndarray:
    """Multiples of 1/8, the same for a shape each time."""
    return np.random.default_rng(shape).integers(low, high, shape) / 8.0


def cuba_lif(*shape: int, **changes: Any) -> nir.CubaLIF:
    """u = u / 2 + i; v = 3/4 v + u; spike above 1."""
    values = {"tau_syn": 2 * DT, "w_in": 2.0, "tau_mem": 4 * DT, "r": 4.0} | {"v_leak": 0.0, "v_threshold": 1.0}
    values |= {"v_reset": 0.0} | changes
    return nir.CubaLIF(**{name: full(shape, 1.0) * value for name, value in values.items()})


def lif(*shape: int, **changes: Any) -> nir.LIF:
    """v = 3/4 v + i; spike above 1."""
    values = {"tau": 4 * DT, "r": 4.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0} | changes
    return nir.LIF(**{name: full(shape, 1.0) * value for name, value in values.items()})


def integrate(*shape: int, **changes: Any) -> nir.IF:
    values = {"r": STEP, "v_threshold": 1.0, "v_reset": 0.0} | changes
    return nir.IF(**{name: full(shape, 1.0) * value for name, value in values.items()})


@dataclass(frozen=True)
class Case:
    """A minimal graph for a row; a refusal must name one of the nodes `named`."""

    nodes: dict[str, nir.NIRNode]
    edges: list[tuple[str, str]] | None = None  # a chain, if not given
    numbers: bool = False
    named: tuple[str, ...] = ("node",)
    spikes: list[list[int]] | None = None
    record: tuple[str, ...] = ()
    dt: float = DT

    def graph(self) -> nir.NIRGraph:
        edges = self.edges if self.edges is not None else list(itertools.pairwise(self.nodes))
        return nir.NIRGraph(nodes=dict(self.nodes), edges=edges, type_check=False)

    def inputs(self) -> np.ndarray:
        if self.spikes is not None:
            return np.array(self.spikes, dtype=bool)
        (node,) = [node for node in self.nodes.values() if isinstance(node, nir.Input)]
        shape = (TIME_STEPS, *(int(size) for size in node.input_type["input"]))
        rng = np.random.default_rng(5)
        return rng.integers(-8, 9, shape) / 4 if self.numbers else rng.random(shape) < 0.4


def between(shape: tuple[int, ...], middle: dict[str, nir.NIRNode], out: tuple[int, ...]) -> dict[str, nir.NIRNode]:
    """Nodes with an Input of a shape before them and an Output after."""
    return {"in": nir.Input(np.array(shape)), **middle, "out": nir.Output(np.array(out))}


def neuron(node: nir.NIRNode, size: int = 5, **options: Any) -> Case:
    return Case(between((4,), {"fc": nir.Linear(weights(size, 4)), "node": node}, (size,)), record=("node",), **options)


def linear(node: nir.NIRNode, shape: tuple[int, ...], out: tuple[int, ...], flat: bool = False) -> Case:
    """A node without state between the Input and CubaLIF neurons, flattened before them or not."""
    size = int(np.prod(out))
    middle: dict[str, nir.NIRNode] = {"node": node}
    if flat:
        middle["flat"] = nir.Flatten({"input": np.array(out)}, start_dim=0)
        out = (size,)
    return Case(between(shape, middle | {"lif": cuba_lif(*out)}, out))


def delay(steps: list[int] | int) -> Case:
    node = nir.Delay(full((4,), DT) * np.asarray(steps, dtype=float))
    return Case(between((4,), {"node": node, "fc": nir.Linear(weights(3, 4)), "lif": cuba_lif(3)}, (3,)))


def loop(back: dict[str, nir.NIRNode]) -> Case:
    """Neurons whose spikes come back to them through `back`."""
    nodes = between((4,), {"fc": nir.Linear(weights(3, 4)), "lif": cuba_lif(3)} | back, (3,))
    way = ["lif", *back, "lif"]
    edges = [("in", "fc"), ("fc", "lif"), ("lif", "out"), *itertools.pairwise(way)]
    return Case(nodes, edges, named=("lif", *back), record=("lif",))


def subgraph() -> Case:
    inner = nir.NIRGraph(
        between((4,), {"fc": nir.Affine(weights(3, 4), weights(3)), "lif": cuba_lif(3)}, (3,)),
        [("in", "fc"), ("fc", "lif"), ("lif", "out")],
        type_check=False,
    )
    nodes = between((4,), {"node": inner, "fc": nir.Linear(weights(2, 3)), "lif": cuba_lif(2)}, (2,))
    return Case(nodes, record=("node.lif",))


def joined(last: dict[str, nir.NIRNode]) -> Case:
    """Two populations side by side whose spikes add up in what follows."""
    middle = {"fc1": nir.Linear(weights(3, 4)), "lif1": cuba_lif(3), "fc2": nir.Linear(-weights(3, 4))}
    middle["lif2"] = cuba_lif(3)
    nodes = {"in": nir.Input(np.array([4])), **middle, **last}
    names = list(last)
    edges = [("in", "fc1"), ("fc1", "lif1"), ("in", "fc2"), ("fc2", "lif2"), ("lif1", names[0]), ("lif2", names[0])]
    return Case(nodes, edges + list(itertools.pairwise(names)), named=(*last, "lif2"))


def pool(kind: type[nir.NIRNode], padding: int) -> Case:
    out = (1, 2, 2) if not padding else (1, 3, 3)
    return linear(kind(np.array([2, 2]), np.array([2, 2]), np.full(2, padding)), (1, 4, 4), out, flat=True)


def convolution(channels: int, groups: int) -> Case:
    node = nir.Conv2d((4, 4), weights(2, channels // groups, 3, 3), 1, 1, 1, groups, weights(2))
    return linear(node, (channels, 4, 4), (2, 4, 4), flat=True)


OWN, OWN_TAU = np.array([0.5, 1.0, 2.0, 1.0, 0.75]), np.array([0.5, 1.0, 2.0, 1.0, 4.0])
CASES: dict[str, Callable[[], Case]] = {
    "Input of 0 and 1": lambda: neuron(cuba_lif(5)),
    "Input of other numbers": lambda: neuron(cuba_lif(5), named=("in",), numbers=True),
    "dt other than 1e-4 s": lambda: neuron(cuba_lif(5, tau_syn=20 * DT, tau_mem=40 * DT), dt=10 * DT),
    "Output of a sum": lambda: joined({"out": nir.Output(np.array([3]))}),
    "Affine": lambda: linear(nir.Affine(weights(3, 4), weights(3)), (4,), (3,)),
    "Affine over several axes": lambda: linear(nir.Affine(weights(2, 3, 4), weights(2, 3)), (2, 4), (2, 3)),
    "Linear": lambda: linear(nir.Linear(weights(3, 4)), (4,), (3,)),
    "Scale": lambda: linear(nir.Scale(np.array([1.0, 0.5, -0.5, 2.0])), (4,), (4,)),
    "Flatten": lambda: linear(nir.Flatten({"input": np.array([2, 3])}, start_dim=0), (2, 3), (6,)),
    "Conv1d": lambda: linear(nir.Conv1d(5, weights(2, 2, 3), 1, 1, 1, 1, weights(2)), (2, 5), (2, 5), flat=True),
    "Conv2d": lambda: convolution(1, 1),
    "Conv2d in groups": lambda: convolution(2, 2),
    "SumPool2d": lambda: pool(nir.SumPool2d, 0),
    "SumPool2d with padding": lambda: pool(nir.SumPool2d, 1),
    "AvgPool2d": lambda: pool(nir.AvgPool2d, 0),
    "AvgPool2d with padding": lambda: pool(nir.AvgPool2d, 1),
    "Delay, one for all": lambda: delay(3),
    "Delay, each its own": lambda: delay([0, 1, 2, 5]),
    "Delay in a loop": lambda: loop({"node": nir.Delay(full((3,), 2 * DT)), "rec": nir.Linear(weights(3, 3))}),
    "CubaLIF": lambda: neuron(cuba_lif(5)),
    "CubaLIF at v_threshold exactly": lambda: Case(
        between((1,), {"fc": nir.Linear(full((1, 1), 1.0)), "node": cuba_lif(1)}, (1,)), spikes=[[1], [0], [0], [0]]
    ),
    "CubaLIF, r and w_in other than tau / dt": lambda: neuron(cuba_lif(5, r=2.0, w_in=1.0)),
    "CubaLIF, each its own v_threshold": lambda: neuron(cuba_lif(5, v_threshold=OWN)),
    "CubaLIF, each its own tau": lambda: neuron(
        cuba_lif(
            5, tau_mem=4 * DT * OWN_TAU, r=4 * OWN_TAU, tau_syn=np.array([1, 2, 4, 2, 2]) * DT, w_in=[1, 2, 4, 2, 2]
        )
    ),
    "CubaLIF with v_leak": lambda: neuron(cuba_lif(5, v_leak=0.5)),
    "CubaLIF with v_reset": lambda: neuron(cuba_lif(5, v_reset=-0.5)),
    "CubaLIF over several axes": lambda: Case(between((2, 3), {"node": cuba_lif(2, 3, v_threshold=1.5)}, (2, 3))),
    "CubaLIF without exact integers": lambda: neuron(cuba_lif(5, tau_mem=3.7 * DT, r=3.7)),
    "LIF, r = tau / dt": lambda: neuron(lif(5)),
    "LIF, r = 1": lambda: neuron(lif(5, r=1.0, v_threshold=0.25)),
    "LIF, another r": lambda: neuron(lif(5, r=2.0)),
    "LIF, each its own tau and v_threshold": lambda: neuron(
        lif(5, tau=4 * DT * OWN_TAU, r=4 * OWN_TAU, v_threshold=OWN)
    ),
    "LIF with v_leak": lambda: neuron(lif(5, v_leak=0.5)),
    "LIF with v_reset": lambda: neuron(lif(5, v_reset=-0.5)),
    "IF, r = 1 / dt": lambda: neuron(integrate(5)),
    "IF, another r": lambda: neuron(integrate(5, r=STEP / 2)),
    "IF with v_reset": lambda: neuron(integrate(5, v_reset=-0.5)),
    "LI": lambda: neuron(nir.LI(full((5,), 4 * DT), full((5,), 4.0), full((5,), 0.0))),
    "LI before another node": lambda: Case(
        between(
            (4,),
            {
                "fc": nir.Linear(weights(3, 4)),
                "node": nir.LI(full((3,), 4 * DT), full((3,), 4.0), full((3,), 0.0)),
                "fc2": nir.Linear(weights(2, 3)),
                "lif": lif(2),
            },
            (2,),
        )
    ),
    "CubaLI": lambda: neuron(
        nir.CubaLI(full((5,), 2 * DT), full((5,), 4 * DT), full((5,), 4.0), full((5,), 0.0), full((5,), 2.0))
    ),
    "I": lambda: neuron(nir.I(full((5,), STEP))),
    "Threshold": lambda: neuron(nir.Threshold(full((5,), 0.5))),
    "subgraph": subgraph,
    "branches that join": lambda: joined(
        {"node": nir.Linear(weights(2, 3)), "lif": cuba_lif(2), "out": nir.Output(np.array([2]))}
    ),
    "neurons onto themselves": lambda: loop({}),
    "recurrent Linear": lambda: loop({"rec": nir.Linear(weights(3, 3))}),
    "recurrent Affine with a bias": lambda: loop({"rec": nir.Affine(weights(3, 3), weights(3))}),
}


def table() -> dict[tuple[str, str], str]:
    """(row, backend) -> cell, of the first table of docs/semantics.md."""
    text = (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8")
    lines = text.split("\n\n| node |")[1].split("\n\n")[0].splitlines()
    backends = [cell.strip() for cell in lines[0].strip("| ").split("|")]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines[2:]]
    assert [row[0] for row in rows] == list(CASES), "the rows are the cases, in their order"
    assert backends == list(BACKENDS)
    return {(row[0], name): cell for row in rows for name, cell in zip(backends, row[1:], strict=True)}


BACKENDS = ("torch", "fixed", "lava", "lava-float", "snntorch", "norse", "spikingjelly")
CELLS = table()


def test_every_backend_that_runs_graphs_has_a_column() -> None:
    run_graph = {name: backend_class(name).run_graph for name in BUILT_IN}
    assert run_graph.pop("lava-stock") is Backend.run_graph  # refuses
    assert sorted(BACKENDS) == sorted(name for name, function in run_graph.items() if function is not Backend.run_graph)


@pytest.fixture(scope="module")
def lava_worker(lava_folder: Path) -> Iterator[WorkerClient]:
    """One worker for all graphs: starting one takes seconds."""
    with closing(WorkerClient(lava_folder, 120)) as client:
        yield client


def ran(name: str, case: Case, request: pytest.FixtureRequest) -> GraphRecord:
    """The case on a backend, as its `run_graph` does it; Lava's graphs share a worker."""
    arguments = (case.graph(), case.inputs(), case.dt, case.record)
    if name in ("lava", "lava-float"):
        prepare = graph_run.integer_run if name == "lava" else graph_run.float_run
        return run_on(prepare(*arguments), request.getfixturevalue("lava_worker"), shared=True)
    backend = make_backend(name)
    state = backend.availability()
    if not state.ready:
        pytest.skip(f"{name}: {state.detail}")
    return backend.run_graph(*arguments)


@pytest.mark.parametrize(("row", "name"), CELLS, ids=lambda part: part.replace(" ", "-"))
def test_a_cell_says_what_the_backend_does(row: str, name: str, request: pytest.FixtureRequest) -> None:
    case, cell = CASES[row](), CELLS[row, name]
    if cell == "no":
        with pytest.raises(SpikerlError) as caught:
            ran(name, case, request)
        assert any(f"'{node}'" in caught.value.message for node in case.named), caught.value.message
        return
    assert cell == "yes"
    record = ran(name, case, request)
    defined = run_definition(case.graph(), case.inputs(), case.dt)
    # Integers truncate decays: voltages are off by some of their units.
    tolerance = {"rtol": 0, "atol": 1e-4} if make_backend(name).exactness == "integer" else {"rtol": 1e-4, "atol": 1e-5}
    if record.output.dtype == bool:
        assert 0 < record.output.sum() < record.output.size
        np.testing.assert_array_equal(record.output, defined.output > 0)
    else:
        np.testing.assert_allclose(record.output, defined.output, **tolerance)
    assert {*record.spikes, *record.voltages} == set(case.record)
    for node, raster in record.spikes.items():
        np.testing.assert_array_equal(raster, defined.spikes[node])
    for node, voltage in record.voltages.items():
        np.testing.assert_allclose(voltage, defined.voltages[node], **tolerance)

"""NIR files of other frameworks: an imported core spikes as its maker does; the rest is refused by node."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import snntorch
import torch
from snntorch.export_nir import export_to_nir
from snntorch.import_nir import import_from_nir
from support import random_policy, random_spikes

from exporters.importers.foreign_nir import import_nir
from exporters.quantize import quantize
from simulators.fixed import FixedBackend
from simulators.torch_backend import TorchBackend
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.float_core import run_floats
from spikerl_deploy.nir_core import layers_from_graph
from spikerl_deploy.policy import Policy
from spikerl_deploy.policy_file import load_policy, save_policy

STEPS, SIZES = 40, (30, 24, 20)
SPIKES = random_spikes(0, (4, STEPS, SIZES[0]))


def output_of(policy: Policy, backend: Any = None) -> np.ndarray:
    with (backend or TorchBackend("cpu")).open(policy, len(SPIKES)) as session:
        rasters = session.infer(SPIKES, rasters=True).rasters
    assert rasters is not None
    return rasters[-1]


def assert_same_spikes(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert 0.02 < theirs.mean() < 0.9
    np.testing.assert_array_equal(ours, theirs)


def weights(rng: np.random.Generator, n_in: int, n_out: int, grid: float | None = None) -> tuple[Any, Any]:
    weight, bias = rng.normal(0.0, 1.6 / np.sqrt(n_in), (n_out, n_in)), rng.normal(0.05, 0.1, n_out)
    if grid:
        weight, bias = np.round(weight / grid) * grid, np.round(bias / grid) * grid
    return weight.astype(np.float32), bias.astype(np.float32)


def chain(*nodes: nir.NIRNode, inputs: Any = SIZES[0], outputs: int = SIZES[-1], **metadata: Any) -> nir.NIRGraph:
    named = {"input": nir.Input(input_type={"input": np.atleast_1d(inputs)})}
    named |= {f"n{index}": node for index, node in enumerate(nodes)}
    named["output"] = nir.Output(output_type={"output": np.array([outputs])})
    names = list(named)
    return nir.NIRGraph(named, list(itertools.pairwise(names)), metadata=metadata, type_check=False)


def import_graph(graph: nir.NIRGraph) -> Policy:
    return Policy(layers_from_graph(graph, 1e-4), time_steps=STEPS)


def written(folder: Path, graph: nir.NIRGraph) -> Path:
    nir.write(folder / "graph.nir", graph)
    return folder / "graph.nir"


# snnTorch, as it is installed


def snntorch_net(kind: str, bias: bool = True, **neuron: Any) -> torch.nn.Sequential:
    """Its parameters are vectors, which its exporter needs, and decays of more than six digits."""

    def population(n: int) -> torch.nn.Module:
        options = {"threshold": torch.full((n,), 0.7), "init_hidden": True} | neuron
        if kind == "Leaky":
            return snntorch.Leaky(beta=torch.full((n,), 0.8237123), **options)
        return snntorch.Synaptic(alpha=torch.full((n,), 0.4123457), beta=torch.full((n,), 0.8), **options)

    modules: list[torch.nn.Module] = []
    for index in (0, 1):
        linear = torch.nn.Linear(SIZES[index], SIZES[index + 1], bias=bias)
        weight, offset = weights(np.random.default_rng(index), SIZES[index], SIZES[index + 1])
        linear.weight.data = torch.from_numpy(weight)
        if bias:
            linear.bias.data = torch.from_numpy(offset)
        modules += [linear, population(SIZES[index + 1])]
    return torch.nn.Sequential(*modules)


def snntorch_file(folder: Path, net: torch.nn.Sequential) -> Path:
    return written(folder, export_to_nir(net, torch.zeros(1, SIZES[0]), ignore_dims=[0]))


def snntorch_output(net: torch.nn.Sequential) -> np.ndarray:
    with torch.no_grad():
        return np.stack([net(torch.from_numpy(SPIKES[:, t]).float()).numpy() > 0 for t in range(STEPS)], axis=1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["Leaky", "Synaptic"])
def test_a_snntorch_network_spikes_as_snntorch_runs_it(tmp_path: Path, kind: str, bias: bool) -> None:
    net = snntorch_net(kind, bias, reset_mechanism="zero", reset_delay=False)
    policy, notes = import_nir(snntorch_file(tmp_path, net), "snntorch", time_steps=STEPS)
    assert_same_spikes(output_of(policy), snntorch_output(net))
    assert policy.layers[0].current_decay == (0.0 if kind == "Leaky" else pytest.approx(0.4123457, abs=2e-7))
    assert [note for note in notes if "reset" not in note] == []


@pytest.mark.parametrize("kind", ["Leaky", "Synaptic"])
@pytest.mark.parametrize("reset", [{}, {"reset_mechanism": "subtract"}, {"reset_mechanism": "zero"}])
def test_whatever_the_reset_was_the_core_spikes_as_snntorchs_own_reader(
    tmp_path: Path, kind: str, reset: dict[str, str]
) -> None:
    path = snntorch_file(tmp_path, snntorch_net(kind, **reset))
    policy, notes = import_nir(path, "snntorch", time_steps=STEPS)
    with contextlib.redirect_stdout(io.StringIO()):
        network = import_from_nir(nir.read(path))
    state, outputs = None, []
    with torch.no_grad():
        for t in range(STEPS):
            out, state = network(torch.from_numpy(SPIKES[:, t]).float(), state)
            outputs.append(out.numpy() > 0)
    assert_same_spikes(output_of(policy), np.stack(outputs, axis=1))
    assert "do not say how its neurons reset" in notes[0]


def test_a_wrong_time_step_of_a_snntorch_file_is_noted(tmp_path: Path) -> None:
    path = snntorch_file(tmp_path, snntorch_net("Leaky"))
    _, notes = import_nir(path, "snntorch", dt=1e-5)
    assert sum("is dt right?" in note for note in notes) == 2


def test_a_recurrent_snntorch_network_is_refused(tmp_path: Path) -> None:
    net = torch.nn.Sequential(
        torch.nn.Linear(SIZES[0], 8),
        snntorch.RLeaky(beta=torch.full((8,), 0.5), all_to_all=True, linear_features=8, init_hidden=True),
    )
    path = snntorch_file(tmp_path, net)
    with pytest.raises(SpikerlError, match="branches.*without recurrence|closes a loop"):
        import_nir(path, "snntorch")


# SpikingJelly 2.0.0 and Norse 1.1.0: what their exporters write, and their equations


def spikingjelly_lif(n: int, tau: float, decay_input: bool, v_threshold: float, dt: float = 1e-4) -> nir.LIF:
    full = lambda value: np.full(n, value)  # noqa: E731
    return nir.LIF(full(tau * dt), full(1.0 if decay_input else tau), full(0.0), full(v_threshold), full(0.0))


@pytest.mark.parametrize("decay_input", [True, False])
def test_a_spikingjelly_network_fires_at_its_threshold(tmp_path: Path, decay_input: bool) -> None:
    rng, tau, threshold = np.random.default_rng(0), 4.0, 0.25
    maps = [weights(rng, a, b, grid=1 / 8) for a, b in itertools.pairwise(SIZES)]
    nodes = [
        node
        for weight, bias in maps
        for node in (nir.Affine(weight, bias), spikingjelly_lif(len(bias), tau, decay_input, threshold))
    ]
    spikes, ties = SPIKES.astype(np.float64), 0
    for weight, bias in maps:  # v <- v + (x - v) / tau or v (1 - 1 / tau) + x; spike where v >= threshold
        v, out = np.zeros((len(spikes), len(bias))), []
        for t in range(STEPS):
            x = spikes[:, t] @ weight.T.astype(float) + bias
            v = v + (x - v) / tau if decay_input else v * (1 - 1 / tau) + x
            fired = v >= threshold
            ties += int((v == threshold).sum())
            v = np.where(fired, 0.0, v)
            out.append(fired)
        spikes = np.stack(out, axis=1).astype(np.float64)
    assert ties > 10
    path = written(tmp_path, chain(*nodes))
    policy, _ = import_nir(path, "spikingjelly", time_steps=STEPS)
    assert_same_spikes(output_of(policy), spikes.astype(bool))
    strict, _ = import_nir(path, "nir", time_steps=STEPS)
    assert (output_of(strict) != spikes.astype(bool)).any()


@pytest.mark.parametrize("current", [True, False])
def test_a_norse_network_gets_its_time_constants_back(tmp_path: Path, current: bool) -> None:
    rng, dt, mem_inv, syn_inv, threshold = np.random.default_rng(0), 1e-3, 250.0, 500.0, 0.25
    maps = [weights(rng, a, b) for a, b in itertools.pairwise(SIZES)]
    nodes: list[nir.NIRNode] = []
    for weight, bias in maps:
        tau, ones = np.full(len(bias), dt / mem_inv, dtype=np.float32), np.ones(len(bias), dtype=np.float32)
        nodes.append(nir.Affine(weight, bias))
        if current:
            tau_syn = np.full(len(bias), dt / syn_inv, dtype=np.float32)
            nodes.append(nir.CubaLIF(tau_syn, tau, ones, 0 * ones, threshold * ones))
        else:
            nodes.append(nir.LIF(tau, ones, 0 * ones, threshold * ones))
    spikes = SPIKES.astype(np.float64)
    for weight, bias in maps:  # v <- v + dt / tau_mem (i - v); i <- i (1 - dt / tau_syn) after it was used
        v, i, out = np.zeros((len(spikes), len(bias))), np.zeros((len(spikes), len(bias))), []
        for t in range(STEPS):
            i = i + spikes[:, t] @ weight.T.astype(float) + bias
            v = v + dt * mem_inv * (i - v)
            i = i - dt * syn_inv * i if current else 0 * i
            fired = v > threshold
            v = np.where(fired, 0.0, v)
            out.append(fired)
        spikes = np.stack(out, axis=1).astype(np.float64)
    path = written(tmp_path, chain(*nodes))
    policy, notes = import_nir(path, "norse", time_steps=STEPS)
    assert policy.dt == dt and "'n1', 'n3' were divided by dt" in notes[0]
    assert_same_spikes(output_of(policy), spikes.astype(bool))
    with pytest.raises(SpikerlError, match="'n1' has tau.* a time constant below dt") as caught:
        import_nir(path, dt=dt)
    assert "--made-by norse" in (caught.value.hint or "")


def test_a_norse_file_with_right_time_constants_is_left_as_it_is(tmp_path: Path) -> None:
    path = written(tmp_path, chain(nir.Affine(np.ones((2, 3)), np.zeros(2)), lif(2), inputs=3, outputs=2))
    left, notes = import_nir(path, "norse", dt=1e-4)
    plain, _ = import_nir(path, dt=1e-4)
    assert notes == () and left.layers[0].voltage_decay == plain.layers[0].voltage_decay
    np.testing.assert_array_equal(left.layers[0].weight, plain.layers[0].weight)


# NIR's own equations, in graphs that no exporter writes like that


def lif(n: int, **changed: Any) -> nir.LIF:
    ones = np.ones(n)
    values = {"tau": 4e-4 * ones, "r": 4 * ones, "v_leak": 0 * ones, "v_threshold": 0.5 * ones, "v_reset": 0 * ones}
    return nir.LIF(**(values | changed))


def cuba(n: int, **changed: Any) -> nir.CubaLIF:
    ones = np.ones(n)
    values = {"tau_syn": 2e-4 * ones, "tau_mem": 4e-4 * ones, "r": 4 * ones, "v_leak": 0 * ones, "w_in": 2 * ones}
    return nir.CubaLIF(**(values | {"v_threshold": 0.5 * ones, "v_reset": 0 * ones} | changed))


def nir_output(nodes: list[nir.NIRNode], dt: float = 1e-4) -> np.ndarray:
    """NIR's equations by forward Euler, node by node, with every parameter as it stands in the file."""
    x = SPIKES.astype(np.float64)
    for node in nodes:
        if isinstance(node, nir.Affine | nir.Linear):
            x = x @ np.asarray(node.weight, dtype=float).T + getattr(node, "bias", 0.0)
        elif isinstance(node, nir.Scale):
            x = x * node.scale
        elif isinstance(node, nir.LIF | nir.CubaLIF):
            has_current = isinstance(node, nir.CubaLIF)
            tau = node.tau_mem if has_current else node.tau
            v, i, out = np.zeros_like(x[:, 0]), np.zeros_like(x[:, 0]), []
            for t in range(x.shape[1]):
                i = i + dt / node.tau_syn * (node.w_in * x[:, t] - i) if has_current else x[:, t]
                v = v + dt / tau * (node.v_leak - v + node.r * i)
                fired = v > node.v_threshold
                v = np.where(fired, node.v_reset, v)
                out.append(fired)
            x = np.stack(out, axis=1).astype(np.float64)
    return x.astype(bool)


RNG = np.random.default_rng(3)
FIRST, SECOND = weights(RNG, *SIZES[:2]), weights(RNG, *SIZES[1:])
GAIN = {n: RNG.uniform(0.5, 2.0, n) for n in SIZES}


@pytest.mark.parametrize(
    "nodes",
    [
        [nir.Affine(*FIRST), cuba(24), nir.Affine(*SECOND), cuba(20)],
        [nir.Linear(FIRST[0]), lif(24), nir.Affine(*SECOND), cuba(20)],
        [nir.Affine(*FIRST), cuba(24, r=4 * GAIN[24], w_in=1.5 * GAIN[24]), nir.Affine(*SECOND), lif(20)],
        [nir.Affine(*FIRST), lif(24, r=2 * GAIN[24]), nir.Affine(*SECOND), lif(20, r=4 * GAIN[20])],
        [nir.Affine(*FIRST), lif(24, v_leak=0.3 * GAIN[24]), nir.Affine(*SECOND), lif(20, v_leak=-0.2 * GAIN[20])],
        [
            nir.Affine(*FIRST),
            cuba(24, v_threshold=0.5 * GAIN[24]),
            nir.Linear(SECOND[0]),
            lif(20, v_threshold=GAIN[20]),
        ],
        [nir.Scale(GAIN[30]), nir.Affine(*FIRST), lif(24), nir.Affine(*SECOND), nir.Scale(GAIN[20]), lif(20)],
        [nir.Scale(GAIN[30]), nir.Scale(GAIN[30]), nir.Affine(*FIRST), cuba(24), nir.Affine(*SECOND), cuba(20)],
    ],
    ids=["cuba", "lif", "cuba gains", "lif gains", "leak", "thresholds", "scales", "two scales"],
)
def test_a_core_spikes_as_nirs_equations_say(tmp_path: Path, nodes: list[nir.NIRNode]) -> None:
    policy, notes = import_nir(written(tmp_path, chain(*nodes)), time_steps=STEPS)
    assert_same_spikes(output_of(policy), nir_output(nodes))
    assert notes == ()
    save_policy(policy, tmp_path / "core.nir")
    assert_same_spikes(output_of(load_policy(tmp_path / "core.nir")), nir_output(nodes))


def test_an_imported_core_runs_in_integers() -> None:
    rng = np.random.default_rng(0)
    maps = [weights(rng, a, b, grid=1 / 16) for a, b in itertools.pairwise(SIZES)]
    nodes = [nir.Affine(*maps[0]), lif(24), nir.Affine(*maps[1]), cuba(20)]
    integers, _ = quantize(import_graph(chain(*nodes)), 8)
    assert (output_of(integers, FixedBackend()) == nir_output(nodes)).mean() > 0.95


def test_parameters_given_once_hold_for_all_neurons() -> None:
    once = cuba(1, v_threshold=np.array([0.7]))
    graph = chain(nir.Affine(*FIRST), once, outputs=24)
    assert_same_spikes(output_of(import_graph(graph)), nir_output([nir.Affine(*FIRST), once]))


def test_flatten_and_subgraphs_pass_through(tmp_path: Path) -> None:
    flatten = nir.Flatten({"input": np.array([5, 6])}, 0, -1)
    inner = chain(nir.Affine(*SECOND), cuba(20), inputs=24)
    graph = chain(flatten, nir.Affine(*FIRST), cuba(24), inner, inputs=[5, 6])
    policy, _ = import_nir(written(tmp_path, graph), time_steps=STEPS)
    expected = nir_output([nir.Affine(*FIRST), cuba(24), nir.Affine(*SECOND), cuba(20)])
    assert_same_spikes(output_of(policy), expected)


def test_the_time_step_comes_from_the_option_then_the_file_then_the_maker(tmp_path: Path) -> None:
    nodes = [nir.Affine(*FIRST), lif(24)]
    stated = written(tmp_path, chain(*nodes, outputs=24, dt=2e-4))
    for options, dt in (({}, 2e-4), ({"dt": 4e-4}, 4e-4), ({"made_by": "norse"}, 2e-4)):
        policy, _ = import_nir(stated, **options)
        assert policy.dt == dt
        assert policy.layers[0].voltage_decay == pytest.approx(1 - dt / 4e-4)
    plain = written(tmp_path, chain(nir.Affine(*FIRST), lif(24, tau=np.full(24, 0.01)), outputs=24))
    assert [import_nir(plain, maker)[0].dt for maker in ("nir", "snntorch", "norse", "spikingjelly")] == [
        1e-4, 1e-4, 1e-3, 1e-4,
    ]  # fmt: skip


AFFINE = nir.Affine(*FIRST)
PER_NEURON = np.linspace(2e-4, 8e-4, 24)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([AFFINE, lif(24, v_reset=np.full(24, -0.1))], "'n1' has v_reset other than 0"),
        ([AFFINE, cuba(24, v_leak=np.full(24, 0.1))], "'n1' has v_leak other than 0"),
        ([AFFINE, lif(24, tau=PER_NEURON)], "'n1' has tau that is not one finite value"),
        ([AFFINE, cuba(24, tau_syn=PER_NEURON)], "'n1' has tau_syn that is not one finite value"),
        ([AFFINE, lif(24, tau=np.full(24, 5e-5))], "'n1' has tau 5e-05 s, a time constant below dt = 0.0001 s"),
        ([AFFINE, lif(24, v_threshold=np.zeros(24))], "'n1' has v_threshold 0, a core's is positive"),
        (
            [AFFINE, lif(24, v_threshold=np.geomspace(1, 1e300, 24))],
            r"'n1' has v_threshold 1e\+300, a core's is positive and a f",
        ),
        ([AFFINE, lif(24, v_threshold=np.geomspace(1e-60, 1, 24))], "'n1' has v_threshold 1e-60, a core's is positive"),
        ([AFFINE, lif(24, r=np.full(24, 1e300))], "'n0', 'n1': policy: weight holds values that are not finite"),
        ([AFFINE, lif(24, v_threshold=np.full(24, np.nan))], "'n1' has v_threshold that is not 24 finite values"),
        ([AFFINE, lif(24, r=np.full(24, np.inf))], "'n1' has r that is not 24 finite values"),
        ([AFFINE, lif(20)], "'n1' has v_reset that is not 24 finite values"),
        ([AFFINE, nir.IF(np.ones(24), np.ones(24))], "'n1' is a IF, CubaLIF or LIF was expected: a core's voltage"),
        ([AFFINE, nir.LI(*[np.ones(24)] * 3)], "'n1' is a LI, CubaLIF or LIF"),
        ([AFFINE, nir.Delay(np.ones(24)), lif(24)], "'n1' is a Delay"),
        ([AFFINE, nir.Affine(np.ones((24, 24)), np.ones(24)), lif(24)], "'n1' is a Affine, CubaLIF or LIF"),
        ([nir.Conv1d(30, np.ones((1, 1, 3)), 1, 0, 1, 1, np.ones(1)), lif(24)], "'n0' is a Conv1d, Affine or Linear"),
        ([lif(24)], "'n0' is a LIF, Affine or Linear was expected"),
        ([AFFINE, lif(24), nir.Scale(np.ones(24))], "'n2' has no spiking neurons after it"),
        ([AFFINE, lif(24), nir.Scale(np.ones(24)), lif(24)], "'n2' is a Scale without an Affine"),
        ([AFFINE], "'n0' has no spiking neurons after it"),
        ([nir.Flatten({"input": np.array([30])}, 0, -1)], "no spiking neurons after it"),
        ([nir.Affine(np.full((24, 30), np.nan), np.zeros(24)), lif(24)], "'n0', 'n1': policy: weight holds values"),
        ([nir.Affine(FIRST[0], np.zeros(7)), lif(24)], "'n0' has bias that is not 24 finite values"),
        ([nir.Scale(np.ones(7)), AFFINE, lif(24)], "'n0' has scale that is not 30 finite values"),
    ],
)
def test_what_a_core_cannot_honour_is_refused_by_node(nodes: list[nir.NIRNode], message: str) -> None:
    with pytest.raises(SpikerlError, match=message):
        import_graph(chain(*nodes, outputs=24))


def cut(graph: nir.NIRGraph) -> None:
    graph.edges.remove(("n3", "output"))
    del graph.nodes["output"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.edges.append(("n3", "n2")), "'n3' branches, to 'output' and 'n2'; a core is a chain, without rec"),
        (lambda g: g.edges.__setitem__(-1, ("n3", "n0")), "'n0' closes a loop"),
        (lambda g: g.edges.remove(("n1", "n2")), "'n2' is not on the chain from 'input'"),
        (lambda g: g.nodes.__setitem__("second", g.nodes["input"]), "graph has 2 Input nodes"),
        (cut, "'n3' ends the chain, an Output was expected"),
    ],
)
def test_a_graph_that_is_no_chain_is_refused_by_node(change: Callable[[Any], None], message: str) -> None:
    graph = chain(AFFINE, lif(24), nir.Affine(*SECOND), lif(20))
    change(graph)
    with pytest.raises(SpikerlError, match=message):
        import_graph(graph)


def test_an_edge_given_twice_is_one() -> None:
    graph = chain(AFFINE, lif(24), outputs=24)
    graph.edges.append(graph.edges[0])
    assert len(import_graph(graph).layers) == 1


def test_recurrence_inside_a_subgraph_is_named(tmp_path: Path) -> None:
    inner = chain(lif(24), inputs=24, outputs=24)
    inner.nodes["w_rec"] = nir.Linear(np.ones((24, 24)))
    inner.edges += [("n0", "w_rec"), ("w_rec", "n0")]
    with pytest.raises(SpikerlError, match=r"'n1\.n0' branches"):
        import_graph(chain(AFFINE, inner, outputs=24))


def test_missing_foreign_and_policy_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.nir"
    with pytest.raises(SpikerlError, match="no NIR file at"):
        import_nir(path)
    for content in (b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(SpikerlError, match="not a NIR file that can be read"):
            import_nir(path)
    save_policy(replace(random_policy(), provenance={}), path, force=True)
    with pytest.raises(SpikerlError, match="is a policy file already"):
        import_nir(path)
    with pytest.raises(SpikerlError, match="unknown maker of NIR files 'rockpool'; there is: nir, norse, snntorch"):
        import_nir(path, "rockpool")
    for dt in (0.0, -1.0, float("nan"), float("inf"), 1e-60, 1e300):
        with pytest.raises(SpikerlError, match="is not a positive time step"):
            import_nir(written(tmp_path, chain(AFFINE, lif(24), outputs=24)), dt=dt)


def test_a_dt_whose_time_constants_no_file_can_hold_is_refused_with_a_hint(tmp_path: Path) -> None:
    path = written(tmp_path, chain(AFFINE, lif(24, tau=np.full(24, 4e38)), outputs=24))
    with pytest.raises(
        SpikerlError, match=r"graph\.nir': policy: dt 1e\+38 / .* must be positive and finite"
    ) as caught:
        import_nir(path, dt=1e38)
    assert caught.value.hint


def test_a_file_that_would_grow_or_reads_another_is_refused_by_dataset(tmp_path: Path) -> None:
    path = written(tmp_path, chain(AFFINE, lif(24), outputs=24))
    with h5py.File(path, "r+") as file:
        del file["node/nodes/n0/weight"]
        file.create_dataset("node/nodes/n0/weight", (10**6, 10**6), "f4", chunks=(100, 100), compression="gzip")
    with pytest.raises(SpikerlError, match=r"graph\.nir': '/node/nodes/n0/weight' .* unpack to 1000000\d* values"):
        import_nir(path)
    with h5py.File(path, "r+") as file:
        del file["node/nodes/n0/weight"]
        file["node/nodes/n0/weight"] = h5py.ExternalLink("other.h5", "/data")
    with pytest.raises(SpikerlError, match="'/node/nodes/n0/weight' is a link to elsewhere") as caught:
        import_nir(path)
    assert caught.value.hint == "give a .nir file of a feed-forward spiking network"


# Decays without a code: what the note says is what the integers do


@pytest.mark.parametrize("decay", [0.0, 0.0001, 0.00013, 0.0002, 1 / 4096, 0.3, 0.75, 4095 / 4096, 0.9999])
def test_a_decay_is_noted_where_the_integers_keep_another_share(tmp_path: Path, decay: float) -> None:
    gain = np.full(24, 1 / (1 - decay))
    nodes = [AFFINE, cuba(24, tau_syn=1e-4 * gain, tau_mem=1e-4 * gain, r=gain, w_in=gain)]
    policy, notes = import_nir(written(tmp_path, chain(*nodes, outputs=24)))
    (integer,) = quantize(policy, 8)[0].integers or ()
    kept = {"current": 4096 - integer.du - 1, "voltage": 4096 - integer.dv}
    expected = [name for name, share in kept.items() if abs(share / 4096 - decay) > 1 / 8192]
    assert [note.split("_decay")[0] for note in notes] == expected
    for name, note in zip(expected, notes, strict=True):
        assert f"{name}_decay {decay:g} " in note and f"keep {kept[name]}/4096 of the {name}" in note
    assert expected == {0.0: ["voltage"], 0.0001: ["voltage"], 0.9999: ["current", "voltage"]}.get(decay, [])


def test_integers_without_voltage_decay_keep_a_4096th_of_the_inhibition(tmp_path: Path) -> None:
    """100 inhibitory spikes, then 1.0 against a threshold of 0.99: only what is left of -100 can keep it silent."""
    weight = np.concatenate([np.full((1, 100), -1.0), [[1.0]]], axis=1)
    neuron = lif(1, tau=np.array([1e-4]), r=np.array([1.0]), v_threshold=np.array([0.99]))
    path = written(tmp_path, chain(nir.Linear(weight), neuron, inputs=101, outputs=1))
    policy, notes = import_nir(path, time_steps=3)
    assert policy.layers[0].voltage_decay == 0.0 and "keep 1/4096 of the voltage" in notes[0]
    spikes = np.zeros((1, 3, 101), dtype=bool)
    spikes[0, 0, :100] = spikes[0, 1, 100] = spikes[0, 2, 100] = True

    def fired(core: Policy, backend: Any) -> list[bool]:
        with backend.open(core, 1) as session:
            rasters = session.infer(spikes, rasters=True).rasters
        return rasters[-1][0, :, 0].tolist()

    integers, _ = quantize(policy, 8)
    assert fired(policy, TorchBackend("cpu")) == [False, True, True]
    assert fired(integers, FixedBackend()) == [False, False, True]
    (reader,) = run_floats(integers.layers, np.swapaxes(spikes, 0, 1))  # as a NIR reader runs the quantized file
    assert reader[:, 0, 0].tolist() == [False, False, True]

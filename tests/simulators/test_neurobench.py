"""Our counts against NeuroBench's, exactly, on networks whose every spike both see.

NeuroBench counts what reaches torch layers; the neurons here are modules of its own kind or ours, registered with it.
A metric of it that fails prints a line and gives 0.0: `measure` looks for that line, and for zeros.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import nir
import numpy as np
import pytest
import torch
from support import quantized_policy, random_policy, random_spikes
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from simulators.fixed import FixedBackend
from simulators.protocol import Session
from simulators.registry import make_backend
from simulators.torch_backend import TorchBackend
from spikerl_deploy.graph_workload import GraphWorkload, count_graph, plan_count
from spikerl_deploy.nir_lowering import lower_graph
from spikerl_deploy.nir_order import order_graph
from spikerl_deploy.policy import Policy
from spikerl_deploy.workload import Workload, count_workload
from training.lif import lif_sequence
from training.surrogate import make_surrogate

MISSING = "NeuroBench is not installed: pip install neurobench"
Benchmark = pytest.importorskip("neurobench.benchmarks", reason=MISSING).Benchmark
TorchModel = pytest.importorskip("neurobench.models", reason=MISSING).TorchModel
static = pytest.importorskip("neurobench.metrics.static", reason=MISSING)
workload = pytest.importorskip("neurobench.metrics.workload", reason=MISSING)
DT = 1e-4
STATIC = [static.ConnectionSparsity, static.ParameterCount, static.Footprint]
COUNTED = [workload.SynapticOperations, workload.ActivationSparsity, workload.ActivationSparsityByLayer]


def measure(net: nn.Module, neuron: type[nn.Module], samples: np.ndarray) -> dict[str, Any]:
    """NeuroBench's metrics, a mean over samples [N, ...]."""
    model = TorchModel(net)
    model.add_activation_module(neuron)
    data = TensorDataset(torch.tensor(samples, dtype=torch.float32), torch.zeros(len(samples)))
    benchmark = Benchmark(model, DataLoader(data, batch_size=len(samples)), [], [], [STATIC, COUNTED])
    with redirect_stdout(io.StringIO()) as said, torch.no_grad():
        results = benchmark.run()
    assert "Error running" not in said.getvalue(), said.getvalue()
    found = {**results, **results.pop("SynapticOperations")}
    assert found["Dense"] > found["Effective_ACs"] + found["Effective_MACs"] > 0
    assert all(0 < share < 1 for share in found["ActivationSparsityByLayer"].values())
    assert len(model.connection_hooks) == sum(isinstance(m, nn.Linear | nn.Conv2d) for m in net.modules())
    return found


# Policies: as torch layers of their own neurons, and with what `fixed` gave in place of neurons.


class Lif(nn.Module):
    """A layer of the policy as training runs it: [B, T, n] of synaptic input to spikes."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, drive: Tensor) -> Tensor:
        layer, slope = self.layer, make_surrogate("rectangular", 0.5)
        decays = layer.current_decay, layer.voltage_decay, layer.v_threshold
        return lif_sequence(drive.transpose(0, 1).contiguous(), *decays, slope).transpose(0, 1)


class Played(nn.Module):
    """Gives the spikes that were recorded, whatever arrives."""

    def __init__(self, spikes: np.ndarray) -> None:
        super().__init__()
        self.spikes = torch.tensor(spikes, dtype=torch.float32)

    def forward(self, drive: Tensor) -> Tensor:
        assert drive.shape == self.spikes.shape
        return self.spikes


def linear(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = (torch.tensor(a, dtype=torch.float32) for a in (weight, bias))
    return layer


def pruned(policy: Policy) -> Policy:
    """The policy with four of five weights zero."""
    rng = np.random.default_rng(1)
    layers = (
        replace(layer, weight=layer.weight * (rng.random(layer.weight.shape) < 0.2) * 2) for layer in policy.layers
    )
    return replace(policy, layers=tuple(layers))


def counted(session: Session, spikes: np.ndarray, weights: Any) -> tuple[Workload, tuple[np.ndarray, ...]]:
    """Our counts of one control step of each of the episodes side by side, and the rasters."""
    record = session.infer(spikes, rasters=True)
    totals = [spikes.sum(axis=(0, 1)), *(count.sum(axis=0, dtype=np.int64) for count in record.counts)]
    assert record.rasters is not None
    steps = session.policy.time_steps
    return count_workload(totals, weights, len(spikes), steps, weight_bits=32, control_step_s=None), record.rasters


def assert_policy_counts(ours: Workload, found: dict[str, Any], names: list[str]) -> None:
    assert (ours.effective_acs, ours.effective_macs) == (found["Effective_ACs"], found["Effective_MACs"])
    assert ours.dense == found["Dense"]
    weights, synapses = (sum(n) for n in zip(*((w.n_in * w.neurons, w.synapses) for w in ours.layers), strict=True))
    assert round(1 - synapses / weights, 4) == found["ConnectionSparsity"] > 0
    by_layer = [layer.activation_sparsity for layer in ours.layers]
    assert by_layer == [found["ActivationSparsityByLayer"][name] for name in names]
    updates = ours.updates_active + ours.updates_inactive
    assert (updates - ours.spikes) / updates == pytest.approx(found["ActivationSparsity"], rel=1e-12)
    assert ours.footprint.weights + ours.footprint.biases == 4 * found["ParameterCount"] == found["Footprint"]


def test_a_pruned_policy_of_our_own_torch_layers() -> None:
    policy = pruned(random_policy(seed=3, obs_dim=6, hidden=(48, 40)))
    spikes = random_spikes(0, (16, policy.time_steps, policy.n_in))
    with TorchBackend(device="cpu").open(policy, 16) as session:
        ours, _ = counted(session, spikes, [layer.weight for layer in policy.layers])
    parts = [part for layer in policy.layers for part in (linear(layer.weight, layer.bias), Lif(layer))]
    assert_policy_counts(ours, measure(nn.Sequential(*parts), Lif, spikes), ["1", "3", "5"])


def test_the_spikes_of_a_quantized_policy_on_fixed() -> None:
    policy = quantized_policy(hidden=(48, 40))
    assert policy.integers is not None
    spikes = random_spikes(1, (8, policy.time_steps, policy.n_in))
    weights = [layer.weight for layer in policy.integers]
    with FixedBackend().open(policy, 8) as session:
        ours, rasters = counted(session, spikes, weights)
    parts: list[nn.Module] = []
    for layer, raster in zip(policy.integers, rasters, strict=True):
        parts += [linear(layer.weight, layer.bias), Played(raster)]
    assert_policy_counts(ours, measure(nn.Sequential(*parts), Played, spikes), ["1", "3", "5"])


def test_the_footprint_of_float32_with_states_is_that_of_one_episode_and_grows_with_the_batch() -> None:
    """Footprint counts buffers: with u and v of B episodes it is our total plus the states of B - 1 more."""
    policy = random_policy()
    parts = nn.ModuleList(linear(layer.weight, layer.bias) for layer in policy.layers)
    totals = [np.zeros(n, dtype=np.int64) for n in policy.sizes]
    ours = count_workload(
        totals, [layer.weight for layer in policy.layers], 1, policy.time_steps, weight_bits=32, control_step_s=None
    ).footprint
    for batch in (1, 16):
        for part, layer in zip(parts, policy.layers, strict=True):
            for state in "uv":
                part.register_buffer(state, torch.zeros(batch, layer.n_out))
        assert static.Footprint()(TorchModel(parts)) == ours.total + (batch - 1) * ours.neuron_states


# Graphs: stepped by torch modules that are written out here.


class Neuron(nn.Module):
    """v = v / 2 + i; a spike above 1, there v = 0: NIR's LIF with tau = 2 dt and r = 2."""

    v: Tensor | float = 0.0

    def forward(self, drive: Tensor) -> Tensor:
        v = self.v / 2 + drive
        spikes = (v > 1).float()
        self.v = v * (1 - spikes)
        return spikes


def lif(*shape: int) -> nir.LIF:
    one = np.ones(shape)
    return nir.LIF(tau=2 * DT * one, r=2 * one, v_leak=0 * one, v_threshold=one, v_reset=0 * one)


class Stepped(nn.Module):
    """Runs a time step at a time on [1, T, ...], and keeps what the neurons gave."""

    def __init__(self, step: Callable[[Any, Tensor], list[Tensor]], **parts: nn.Module) -> None:
        super().__init__()
        self.step, self.given = step, list[list[Tensor]]()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, inputs: Tensor) -> Tensor:
        for step in range(inputs.shape[1]):
            self.given.append(self.step(self, inputs[:, step]))
        return self.given[-1][-1]

    def rasters(self) -> list[np.ndarray]:
        return [torch.cat(rows).numpy() for rows in zip(*self.given, strict=True)]


def assert_graph_counts(
    graph: nir.NIRGraph, inputs: np.ndarray, net: Stepped, neurons: list[str], spiking: bool = True
) -> tuple[GraphWorkload, dict[str, Any]]:
    """Count the graph on `torch` and the net in NeuroBench: the same neurons spike, and all counts are equal."""
    found = measure(net, Neuron if spiking else nn.ReLU, inputs[None])
    given = dict(zip(neurons, net.rasters(), strict=True))
    if spiking:
        record = make_backend("torch", device="cpu").run_graph(graph, inputs, DT, neurons)
        for name in neurons:
            np.testing.assert_array_equal(record.spikes[name], given[name])
            assert 0 < record.spikes[name].sum() < record.spikes[name].size
        given = record.spikes
    ordered = order_graph(graph, DT)
    ours = count_graph(plan_count(ordered, lower_graph(ordered)), inputs, given)
    assert sum(row.effective_acs for row in ours.connections) == found["Effective_ACs"]
    assert sum(row.effective_macs for row in ours.connections) == found["Effective_MACs"]
    assert sum(row.dense for row in ours.connections) == found["Dense"]
    by_layer = {row.name: row.activation_sparsity for row in ours.populations}
    assert by_layer == found["ActivationSparsityByLayer"]
    outputs = sum(row.neurons * len(inputs) for row in ours.populations)
    active = sum(row.updates_active for row in ours.populations)
    assert (outputs - active) / outputs == found["ActivationSparsity"]
    return ours, found


def sparse(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Halves from -1.5 to 1.5, a third of them zero, which floats add up exactly."""
    return rng.integers(-3, 4, shape) / 2 * (rng.random(shape) < 0.75)


def test_an_ann_with_relu_on_real_numbers_multiplies() -> None:
    rng = np.random.default_rng(2)
    first, second, bias = sparse(rng, 20, 7), sparse(rng, 5, 20), np.zeros
    ends = {"in": nir.Input(np.array([7])), "out": nir.Output(np.array([5]))}
    # NIR has no ReLU: any neuron stands for it in the graph, since its values are given.
    nodes = {**ends, "fc1": nir.Linear(first), "a": lif(20), "fc2": nir.Linear(second), "b": lif(5)}
    graph = nir.NIRGraph(nodes, [("in", "fc1"), ("fc1", "a"), ("a", "fc2"), ("fc2", "b"), ("b", "out")])

    def step(net: Any, x: Tensor) -> list[Tensor]:
        hidden = net.a(net.fc1(x))
        return [hidden, net.b(net.fc2(hidden))]

    net = Stepped(step, fc1=linear(first, bias(20)), a=nn.ReLU(), fc2=linear(second, bias(5)), b=nn.ReLU())
    inputs = rng.normal(0, 1, (12, 7)).astype(np.float32) * (rng.random((12, 7)) < 0.7)
    ours, found = assert_graph_counts(graph, inputs, net, ["a", "b"], spiking=False)
    assert found["Effective_MACs"] > 0 == found["Effective_ACs"]
    weights, synapses = sum(row.weights for row in ours.connections), sum(row.synapses for row in ours.connections)
    assert round(1 - synapses / weights, 4) == found["ConnectionSparsity"]


@pytest.mark.parametrize("graded", [False, True], ids=["spikes", "graded"])
@pytest.mark.parametrize(("padding", "stride", "dilation", "groups"), [(0, 1, 1, 1), (1, 1, 1, 2), (2, 2, 2, 1)])
def test_a_convolutional_network(padding: int, stride: int, dilation: int, groups: int, graded: bool) -> None:
    rng = np.random.default_rng(3)
    conv = nn.Conv2d(2, 4, 3, stride, padding, dilation, groups, bias=False)
    conv.weight.data = torch.tensor(sparse(rng, *conv.weight.shape), dtype=torch.float32)
    shape = tuple(conv(torch.zeros(1, 2, 7, 6)).shape[1:])
    dense = sparse(rng, 6, int(np.prod(shape)))
    nodes = {
        "in": nir.Input(np.array([2, 7, 6])),
        "conv": nir.Conv2d((7, 6), conv.weight.detach().numpy(), stride, padding, dilation, groups, np.zeros(4)),
        "a": lif(*shape),
        "flat": nir.Flatten({"input": np.array(shape)}, 0, -1),
        "fc": nir.Linear(dense),
        "b": lif(6),
        "out": nir.Output(np.array([6])),
    }
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(itertools.pairwise(names)), type_check=False)  # NIR's check knows no groups

    def step(net: Any, x: Tensor) -> list[Tensor]:
        hidden = net.a(net.conv(x))
        return [hidden, net.b(net.fc(hidden.flatten(1)))]

    inputs = (rng.random((8, 2, 7, 6)) < 0.3).astype(np.float32)
    if graded:
        inputs[::2] *= 1.5  # every other time step multiplies
    net = Stepped(step, conv=conv, a=Neuron(), fc=linear(dense, np.zeros(6)), b=Neuron())
    _, found = assert_graph_counts(graph, inputs, net, ["a", "b"])
    assert (found["Effective_MACs"] > 0) == graded


def test_a_recurrent_network() -> None:
    rng = np.random.default_rng(4)
    into, back, out = sparse(rng, 12, 6), sparse(rng, 12, 12) / 2, sparse(rng, 4, 12)
    nodes = {
        "in": nir.Input(np.array([6])), "into": nir.Linear(into), "a": lif(12), "back": nir.Linear(back),
        "fc": nir.Linear(out), "b": lif(4), "out": nir.Output(np.array([4])),
    }  # fmt: skip
    edges = [("in", "into"), ("into", "a"), ("a", "back"), ("back", "a"), ("a", "fc"), ("fc", "b"), ("b", "out")]

    def step(net: Any, x: Tensor) -> list[Tensor]:
        before = net.given[-1][0] if net.given else torch.zeros(1, 12)
        hidden = net.a(net.into(x) + net.back(before))
        return [hidden, net.b(net.fc(hidden))]

    zeros = np.zeros
    parts = {"into": linear(into, zeros(12)), "back": linear(back, zeros(12)), "fc": linear(out, zeros(4))}
    net = Stepped(step, **parts, a=Neuron(), b=Neuron())
    inputs = (rng.random((15, 6)) < 0.4).astype(np.float32)
    ours, found = assert_graph_counts(nir.NIRGraph(nodes, edges), inputs, net, ["a", "b"])
    assert {row.source: row.delay for row in ours.connections if row.target == "a"} == {"in": 0, "a": 1}
    weights, synapses = sum(row.weights for row in ours.connections), sum(row.synapses for row in ours.connections)
    assert round(1 - synapses / weights, 4) == found["ConnectionSparsity"]

"""The `fixed` backend on NIR graphs: against the definition where integers are exact, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
from hypothesis import given
from nir_definition import run_definition
from nir_graphs import DT, Case, fuzz, graph_cases, hasten
from support import quantized_policy, random_spikes

from simulators.fixed import FixedBackend
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import STATE_LIMIT
from spikerl_deploy.policy_file import policy_to_graph


def small(neuron: nir.NIRNode, shape: tuple[int, ...] = (2,)) -> nir.NIRGraph:
    nodes = {"in": nir.Input(np.array(shape)), "it": neuron, "out": nir.Output(np.array(shape))}
    return nir.NIRGraph(nodes, [("in", "it"), ("it", "out")], type_check=False)


@fuzz(50)
@given(graph_cases(whole=True))
def test_graphs_spike_as_defined_where_no_state_is_cut(case: Case) -> None:
    hasten(case.graph)
    defined = run_definition(case.graph, case.spikes, case.dt)
    names = list(defined.voltages)
    record = FixedBackend().run_graph(case.graph, case.spikes, case.dt, [*defined.spikes, *names])
    assert set(record.spikes) == set(defined.spikes) and set(record.voltages) == set(names)
    np.testing.assert_allclose(record.output, defined.output, rtol=1e-6)
    for name, raster in defined.spikes.items():
        np.testing.assert_array_equal(record.spikes[name], raster, err_msg=name)
    for name in names:
        np.testing.assert_allclose(record.voltages[name], defined.voltages[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_values_are_in_the_graphs_own_units_and_shapes() -> None:
    ones = np.ones((2, 1, 3))
    li = nir.LI(tau=2 * DT * ones, r=4 * ones, v_leak=0.5 * ones)
    record = FixedBackend().run_graph(small(li, ones.shape), np.ones((3, *ones.shape)), DT, ["it"])
    expected = [0.5 * (0.5 + 4), 0.75 * 4.5, 0.875 * 4.5]
    assert record.output.shape == (3, 2, 1, 3) and record.output.dtype == np.float32 and not record.spikes
    np.testing.assert_allclose(record.output[:, 0, 0, 0], expected, atol=1e-4)
    np.testing.assert_array_equal(record.voltages["it"], record.output)


def test_a_threshold_has_spikes_and_no_voltage() -> None:
    record = FixedBackend().run_graph(small(nir.Threshold(np.array([0.5, 1.0]))), np.ones((2, 2)), DT, ["it"])
    assert record.output.tolist() == [[True, False]] * 2 and record.output.dtype == bool
    assert list(record.spikes) == ["it"] and not record.voltages


def test_a_quantized_policy_runs_its_own_integers() -> None:
    policy = quantized_policy(4)
    assert policy.integers is not None
    spikes = random_spikes(3, (policy.time_steps, policy.n_in))
    backend = FixedBackend()
    record = backend.run_graph(policy_to_graph(policy), spikes, policy.dt, ["lif1", "lif3"], policy.integers)
    with backend.open(policy) as session:
        rasters = session.infer(spikes[None], rasters=True).rasters
    assert rasters is not None
    np.testing.assert_array_equal(record.output, rasters[2][0])
    np.testing.assert_array_equal(record.spikes["lif1"], rasters[0][0])
    assert record.voltages["lif3"].max() <= policy.layers[2].v_threshold and backend.rounded == {}


def test_without_exact_integers_a_graph_is_refused_or_rounded_and_reported() -> None:
    ones = np.ones(2)
    graph = small(nir.LIF(tau=3 * DT * ones, r=np.pi * ones, v_leak=0 * ones, v_threshold=ones))
    with pytest.raises(SpikerlError, match="NIR node 'it'") as refused:
        FixedBackend().run_graph(graph, np.ones((2, 2)), DT)
    assert "--round" in (refused.value.hint or "")
    backend = FixedBackend(rounding=True)
    record = backend.run_graph(graph, np.ones((2, 2)), DT)
    assert record.output.all() and 0 < backend.rounded["it"] < 1e-3


@pytest.mark.parametrize(
    ("nodes", "edges", "said"),
    [
        ({"li": nir.LI(np.full(2, DT), np.ones(2), np.zeros(2)), "it": nir.Threshold(np.ones(2))},
         [("in", "li"), ("li", "it"), ("it", "out")], "'li' is a LI whose voltage feeds 'it'"),
        ({"it": nir.Scale(np.ones(2))}, [("in", "it"), ("it", "out")], "'out' is fed by 'it'"),
        ({"a": nir.Threshold(np.ones(2)), "b": nir.Threshold(np.ones(2))},
         [("in", "a"), ("in", "b"), ("a", "out"), ("b", "out")], "'out' is fed by 'a', 'b'"),
        ({"s": nir.Scale(np.ones(2)), "d": nir.Delay(np.full(2, DT)), "it": nir.Threshold(np.ones(2))},
         [("in", "s"), ("s", "d"), ("d", "s"), ("s", "it"), ("it", "out")], "'d' lies in a loop without a neuron"),
    ],
)  # fmt: skip
def test_what_has_no_integers_at_all_is_refused_by_name(
    nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]], said: str
) -> None:
    all_nodes = {"in": nir.Input(np.array([2])), "out": nir.Output(np.array([2]))} | nodes
    with pytest.raises(SpikerlError, match=said):
        FixedBackend(rounding=True).run_graph(nir.NIRGraph(all_nodes, edges, type_check=False), np.ones((1, 2)), DT)


def test_input_other_than_spikes_is_refused() -> None:
    with pytest.raises(SpikerlError, match="other than 0 and 1"):
        FixedBackend().run_graph(small(nir.Threshold(np.ones(2))), np.full((1, 2), 0.5), DT)


def test_a_recurrent_graph_read_from_a_file_runs(tmp_path: Path) -> None:
    """A bias in the way back counts from the first time step on: without it the neuron would spike at step 2 only."""
    ones = np.ones(1)
    nodes = {
        "in": nir.Input(np.array([1])), "it": nir.IF(r=ones / DT, v_threshold=1.5 * ones),
        "back": nir.Affine(np.array([[-1.0]]), ones), "out": nir.Output(np.array([1])),
    }  # fmt: skip
    graph = nir.NIRGraph(nodes, [("in", "it"), ("it", "back"), ("back", "it"), ("it", "out")])
    nir.write(tmp_path / "loop.nir", graph)
    read = nir.read(tmp_path / "loop.nir")
    record = FixedBackend().run_graph(read, np.ones((4, 1)), DT, ["it"])
    # v: 2 -> spike; then 1 - 1 + 1 = 1; then 1 + 2 = 3 -> spike; then 1
    assert record.output[:, 0].tolist() == [True, False, True, False]
    assert record.voltages["it"][:, 0].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("name", ["one", "input"])
def test_a_neuron_may_have_any_name(name: str) -> None:
    nodes = {"in": nir.Input(np.array([1])), name: nir.Threshold(np.zeros(1)), "out": nir.Output(np.array([1]))}
    graph = nir.NIRGraph(nodes, [("in", name), (name, "out")])
    record = FixedBackend().run_graph(graph, np.array([[1], [0]]), DT, [name])
    assert record.output.ravel().tolist() == record.spikes[name].ravel().tolist() == [True, False]


@pytest.mark.parametrize("neuron", ["LI", "I"])
def test_a_voltage_that_is_the_output_is_right_or_refused(neuron: str) -> None:
    """An integrator leaves any number of bits at some time; one that leaks does not."""
    one = np.ones(1)
    node = nir.I(one / DT) if neuron == "I" else nir.LI(1024 * DT * one, 1024 * one, 0 * one)
    spikes = np.ones((70_000, 1))
    if neuron == "LI":
        found = FixedBackend().run_graph(small(node, (1,)), spikes, DT).output
        assert 1000 < found.max() <= 1024
        return
    with pytest.raises(SpikerlError, match="'it': its voltage leaves the chip's 24 bits at time step") as refused:
        FixedBackend().run_graph(small(node, (1,)), spikes, DT)
    assert refused.value.hint


def driven(neuron: nir.NIRNode, weight: list[float]) -> nir.NIRGraph:
    nodes = {"in": nir.Input(np.array([len(weight)])), "fc": nir.Linear(np.array([weight])), "it": neuron}
    ends = {"out": nir.Output(np.array([1]))}
    return nir.NIRGraph(nodes | ends, [("in", "fc"), ("fc", "it"), ("it", "out")], type_check=False)


@pytest.mark.parametrize("neuron", ["IF", "LIF"])
def test_inhibition_that_takes_a_voltage_off_the_chip_is_refused_and_not_forgotten(neuron: str) -> None:
    """A neuron whose voltage clips spikes too soon after the inhibition."""
    one = np.ones(1)
    node = nir.IF(one / DT, one) if neuron == "IF" else nir.LIF(4096 * DT * one, 4096 * one, 0 * one, one)
    graph = driven(node, [127.0, -127.0])
    spikes = np.zeros((2000, 2), dtype=bool)
    spikes[:800, 1] = spikes[800:, 0] = True
    with pytest.raises(SpikerlError, match=r"'it': its voltage leaves the chip's 24 bits at time step 5\d\d$"):
        FixedBackend().run_graph(graph, spikes, DT)
    held = spikes[400:1600]
    np.testing.assert_array_equal(
        FixedBackend().run_graph(graph, held, DT).output, run_definition(graph, held, DT).output
    )


def test_excitation_beyond_the_chip_spikes() -> None:
    graph = driven(nir.IF(np.ones(1) / DT, np.array([100001.0])), [32512.0] * 3)  # 2^23 are 131072 of these units
    record = FixedBackend().run_graph(graph, np.ones((4, 3)), DT)
    assert record.output.ravel().tolist() == [False, True, False, True]


def test_a_policys_own_integers_clip_as_on_the_chip() -> None:
    policy = quantized_policy(8)
    assert policy.integers is not None
    first, *others = policy.integers
    first = replace(first, weight=np.full_like(first.weight, -256), weight_exp=7, dv=0)
    spikes = np.ones((9, policy.n_in), dtype=bool)
    record = FixedBackend().run_graph(policy_to_graph(policy), spikes, policy.dt, ["lif1"], (first, *others))
    unit = first.scale * 2.0 ** -(first.weight_exp + 6)
    np.testing.assert_allclose(record.voltages["lif1"].min(), (1 - STATE_LIMIT) * unit, rtol=1e-6)

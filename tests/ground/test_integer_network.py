"""Integer networks against a neuron in Python's unbounded integers, against the policy's core, and as real numbers."""

from __future__ import annotations

import logging
import time
import tracemalloc
from dataclasses import replace

import nir
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from network_runs import run_floats, run_scalars
from nir_graphs import DT, Case, IntegerCase, fuzz, graph_cases, hasten, integer_cases
from scipy.sparse import csr_array
from support import quantized_policy, random_spikes

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.integer_network import (
    integers_of_graph,
    network_of_integers,
    quantize_network,
    rounding_report,
    run_integers,
)
from spikerl_deploy.loihi import STATE_LIMIT, THRESHOLD_MAX, WEIGHT_MAX, WEIGHT_MIN, IntegerLayer
from spikerl_deploy.network import (
    INPUT,
    ONE,
    Connection,
    FloatNetwork,
    FloatPopulation,
    IntegerNetwork,
    IntegerPopulation,
)
from spikerl_deploy.nir_lowering import lower_graph
from spikerl_deploy.nir_order import order_graph
from spikerl_deploy.policy_file import policy_to_graph


@fuzz(80)
@given(integer_cases())
def test_the_network_equals_neurons_in_unbounded_integers_even_where_states_overflow(case: IntegerCase) -> None:
    names = list(case.network.populations)
    output, spikes, voltages = run_integers(case.network, case.spikes, names)
    fired, volts = run_scalars(case.network, case.spikes)
    for name in names:
        np.testing.assert_array_equal(spikes[name], fired[name], err_msg=name)
        np.testing.assert_array_equal(voltages[name], volts[name], err_msg=name)
    last = case.network.output
    np.testing.assert_array_equal(output, (fired if case.network.populations[last].spiking else volts)[last])
    np.testing.assert_array_equal(run_integers(case.network, case.spikes)[0], output)  # without all that is kept


def one_neuron(weight: int, exponent: int, steps: int, **values: int) -> tuple[np.ndarray, np.ndarray]:
    """Spikes and voltages of one neuron that one input drives at every time step, checked against the scalars."""
    fields = {"decay_u": 4096, "decay_v": 0, "v_threshold": THRESHOLD_MAX * 64, "v_reset": 0, "v_initial": 0} | values
    population = IntegerPopulation(
        name="n", shape=(1,), spiking=True, level=1, unit=np.ones(1), v_offset=np.zeros(1),
        **{name: np.array([value]) for name, value in fields.items()},
    )  # fmt: skip
    network = IntegerNetwork(
        (1,), {"n": population}, (Connection(INPUT, "n", 0, csr_array([[weight]]), exponent),), "n", DT
    )
    spikes = np.ones((steps, 1), dtype=bool)
    _, fired, volts = run_integers(network, spikes, ["n"])
    scalar_fired, scalar_volts = run_scalars(network, spikes)
    np.testing.assert_array_equal(volts["n"], scalar_volts["n"])
    np.testing.assert_array_equal(fired["n"], scalar_fired["n"])
    return fired["n"][:, 0], volts["n"][:, 0]


def test_a_voltage_clips_at_both_ends_and_a_current_wraps() -> None:
    _, volts = one_neuron(-256, 7, 6)  # -2^21 a time step
    assert volts[-1] == 1 - STATE_LIMIT
    fired, volts = one_neuron(-256, 7, 4, decay_u=0, decay_v=4096)  # the current alone: -2^21, ..., -2^23 wraps up
    assert volts.tolist() == [-(2**21), -(2**22), -3 * 2**21, 0] and fired.tolist() == [False] * 3 + [True]
    _, volts = one_neuron(254, 7, 5, decay_u=0, decay_v=4096)
    assert volts.tolist() == [n * 254 * 2**13 for n in (1, 2, 3, 4)] + [5 * 254 * 2**13 - 2**24]


def test_a_spike_needs_more_than_the_threshold_and_resets_to_v_reset() -> None:
    fired, volts = one_neuron(4, 0, 3, v_threshold=8 * 64, v_reset=-100)
    assert fired.tolist() == [False, False, True]
    assert volts.tolist() == [256, 512, -100]


def test_a_negative_exponent_rounds_each_connection_down() -> None:
    _, volts = one_neuron(-2, -2, 1)
    assert volts.tolist() == [-64]


@pytest.mark.parametrize("bits", [8, 4])
def test_a_policys_chain_gives_the_spikes_of_its_core(bits: int) -> None:
    policy = quantized_policy(bits)
    assert policy.integers is not None
    spikes = random_spikes(1, (25, policy.n_in))
    ordered = order_graph(policy_to_graph(policy), policy.dt)
    network, errors = integers_of_graph(ordered, integers=policy.integers)
    names = list(network.populations)
    assert names == ["lif1", "lif2", "lif3"] and errors == {}
    _, fired, _ = run_integers(network, spikes, names)
    expected = IntegerCore(policy.integers, 25)(spikes[:, None])
    for name, raster in zip(names, expected, strict=True):
        np.testing.assert_array_equal(fired[name], raster[:, 0])
    assert sum(int(raster.sum()) for raster in expected) > 100
    for population, layer in zip(network.populations.values(), policy.layers, strict=True):
        np.testing.assert_allclose(population.v_threshold * population.unit, layer.v_threshold, rtol=1e-6)


@fuzz(30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4095), st.integers(0, 4095), st.integers(0, 4))
def test_a_chain_of_any_decays_gives_the_spikes_of_its_core(seed: int, du: int, dv: int, exponent: int) -> None:
    rng = np.random.default_rng(seed)
    layers = [
        IntegerLayer(2 * rng.integers(-128, 128, (n, m)), 2 * rng.integers(-300, 300, n), exponent, du, dv, 900, 1.0)
        for m, n in ((5, 9), (9, 6))
    ]
    spikes = rng.random((30, 5)) < 0.5
    _, fired, _ = run_integers(network_of_integers(layers, ["a", "b"], DT), spikes, ["a", "b"])
    for name, raster in zip("ab", IntegerCore(layers, 30)(spikes[:, None]), strict=True):
        np.testing.assert_array_equal(fired[name], raster[:, 0])


def test_a_policys_graph_has_exact_integers_that_spike_alike() -> None:
    """Without the integers beside it: they are found again from the floats of the NIR nodes."""
    policy = quantized_policy(8)
    assert policy.integers is not None
    spikes = random_spikes(2, (policy.time_steps, policy.n_in))
    network, errors = integers_of_graph(order_graph(policy_to_graph(policy), policy.dt))
    assert max(errors.values()) < 1e-6
    names = list(network.populations)
    _, fired, _ = run_integers(network, spikes, names)
    for name, raster in zip(names, IntegerCore(policy.integers, policy.time_steps)(spikes[:, None]), strict=True):
        np.testing.assert_array_equal(fired[name], raster[:, 0])


def test_a_bias_beyond_one_synapse_is_shared() -> None:
    layer = IntegerLayer(np.full((1, 1), 2), np.full(1, 1000), 1, 4095, 4095, 2000, 1.0)
    network = network_of_integers([layer], ["n"], DT)
    spikes = np.array([[False], [True]])
    output, _, voltages = run_integers(network, spikes, ["n"])
    assert voltages["n"][:, 0].tolist() == [2000 * 64, 0] and output[:, 0].tolist() == [False, True]
    assert all(abs(c.weight).max() <= 256 for c in network.connections)


def test_a_bias_that_a_negative_exponent_cuts_is_refused_by_name() -> None:
    layer = IntegerLayer(np.full((1, 1), 2), np.full(1, 6), -2, 4095, 4095, 10, 1.0)
    with pytest.raises(SpikerlError, match="'fire' has a bias"):
        network_of_integers([layer], ["fire"], DT)
    network_of_integers([replace(layer, bias=np.full(1, 8))], ["fire"], DT)


def as_floats(network: IntegerNetwork) -> dict[tuple[str, str, int], np.ndarray]:
    """Weights that the integers stand for, by source, target and delay."""
    weights: dict[tuple[str, str, int], np.ndarray] = {}
    for c in network.connections:
        key = (c.source, c.target, c.delay)
        unit = network.populations[c.target].unit * 64 * 2.0**c.weight_exp
        weights[key] = weights.get(key, 0) + c.weight.toarray() * unit[:, None]
    return weights


def check_ranges(network: IntegerNetwork) -> None:
    apart = [(c.source, c.target, c.delay, c.weight_exp) for c in network.connections if c.source != ONE]
    assert len(apart) == len(set(apart))
    for c in network.connections:
        data = c.weight.data
        assert data.min() >= WEIGHT_MIN and data.max() <= WEIGHT_MAX and not (data % 2).any()
        assert 0 <= c.weight_exp <= 7
    for p in network.populations.values():
        assert (np.abs(p.v_threshold) <= THRESHOLD_MAX * 64).all() and not (p.v_threshold % 64).any()
        for voltage in (p.v_reset, p.v_initial):
            assert (np.abs(voltage) < STATE_LIMIT).all()
        for decay in (p.decay_u, p.decay_v):
            assert decay.min() >= 0 and decay.max() <= 4096


def check_equal(network: FloatNetwork, integers: IntegerNetwork, tolerance: float) -> None:
    """All that the integers stand for, against the floats."""
    expected = {(c.source, c.target, c.delay): c.weight.toarray() for c in network.connections}
    stands_for = as_floats(integers)
    assert set(stands_for) <= set(expected)
    for key, weight in expected.items():
        largest = max(np.abs(w).max() for k, w in expected.items() if k[1] == key[1])
        np.testing.assert_allclose(stands_for.get(key, 0 * weight), weight, rtol=tolerance, atol=tolerance * largest)
    for name, p in network.populations.items():
        q = integers.populations[name]
        pairs = [(1 - q.decay_u / 4096, p.keep_u), (1 - q.decay_v / 4096, p.keep_v)]
        pairs += [(q.v_initial * q.unit, p.v_initial), (q.v_offset, p.v_offset)]
        if p.spiking:
            pairs += [(q.v_threshold * q.unit, p.v_threshold), (q.v_reset * q.unit, p.v_reset)]
        threshold = np.abs(p.v_threshold).max() if p.spiking else 0
        for ours, theirs in pairs:
            largest = max(threshold, np.abs(theirs).max())
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * largest)


@fuzz(60)
@given(graph_cases(whole=True))
def test_small_binary_fractions_become_exactly_equal_integers(case: Case) -> None:
    network = lower_graph(order_graph(case.graph, case.dt))
    integers = quantize_network(network)
    check_ranges(integers)
    check_equal(network, integers, 1e-12)
    assert max(rounding_report(network, integers).values()) < 1e-12


@fuzz(40)
@given(graph_cases(whole=True))
def test_exact_integers_that_truncate_nothing_spike_as_the_floats_do(case: Case) -> None:
    """Where no time constant exceeds the time step, no state is ever cut, and integers and floats must agree."""
    hasten(case.graph)
    network = lower_graph(order_graph(case.graph, case.dt))
    integers = quantize_network(network)
    names = list(network.populations)
    _, spikes, voltages = run_integers(integers, case.spikes.reshape(len(case.spikes), -1), names)
    _, fired, volts = run_floats(network, case.spikes)
    for name, q in integers.populations.items():
        np.testing.assert_array_equal(spikes[name], fired[name].reshape(len(case.spikes), -1))
        volt = volts[name].reshape(len(case.spikes), -1)
        np.testing.assert_allclose(voltages[name] * q.unit + q.v_offset, volt, rtol=1e-12, atol=1e-12)


def chain(weight: np.ndarray, neuron: nir.NIRNode, bias: np.ndarray | None = None) -> FloatNetwork:
    n_out, n_in = weight.shape
    nodes = {
        "input": nir.Input(np.array([n_in])),
        "fc": nir.Affine(weight, np.zeros(n_out) if bias is None else bias),
        "fire": neuron,
        "output": nir.Output(np.array([n_out])),
    }
    graph = nir.NIRGraph(nodes, [("input", "fc"), ("fc", "fire"), ("fire", "output")], type_check=False)
    return lower_graph(order_graph(graph, 1e-4))


def lif(size: int, tau: float = 4e-4, threshold: float = 1.0) -> nir.LIF:
    ones = np.ones(size, dtype=np.float32)
    return nir.LIF(tau=tau * ones, r=4 * ones, v_leak=0 * ones, v_threshold=threshold * ones)


@fuzz(25)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1e3), st.sampled_from((0.0, 0.3, 40.0)))
@example(0, 1.0, 0.0)
def test_random_weights_are_rounded_to_within_half_a_step_of_the_largest(seed: int, size: float, bias: float) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, size, (5, 7)).astype(np.float32)
    ones = np.ones(5, dtype=np.float32)
    neuron = nir.CubaLIF(
        tau_syn=rng.uniform(1e-4, 9e-4, 5), tau_mem=rng.uniform(1e-4, 9e-4, 5), r=3 * ones, w_in=ones,
        v_leak=rng.normal(0, 0.1, 5), v_threshold=rng.uniform(0.5, 1.5, 5), v_reset=rng.normal(0, 0.1, 5),
    )  # fmt: skip
    network = chain(weight, neuron, rng.normal(0, bias * size, 5) if bias else None)
    with pytest.raises(SpikerlError, match="NIR node 'fire'") as refused:
        quantize_network(network)
    assert "--round" in (refused.value.hint or "")
    integers = quantize_network(network, rounding=True)
    check_ranges(integers)
    report = rounding_report(network, integers)["fire"]
    p, q = network.populations["fire"], integers.populations["fire"]
    threshold = np.abs(q.v_threshold // 64).min()
    if threshold and not bias:  # the threshold is exact, which costs the largest weight less than one part in it
        assert 1e-4 < report < (1 + 1 / threshold) / 254
        np.testing.assert_allclose(q.v_threshold * q.unit, p.v_threshold, rtol=1e-12)
    check_equal(network, integers, report * (1 + 1e-6))


@pytest.mark.parametrize("ratio", [0.3, 1 / 3, 7 / 11])
def test_decimal_weights_in_float32_have_exact_integers(ratio: float) -> None:
    """What float32 stored of 1, 2, -3 times something is still 1, 2, -3 times something."""
    weight = (np.array([[1, 2, -3], [5, 0, 7]]) * ratio).astype(np.float32)
    network = chain(weight, lif(2, threshold=5 * ratio), (np.array([4, -300]) * ratio).astype(np.float32))
    integers = quantize_network(network)
    check_equal(network, integers, 1e-6)
    check_ranges(integers)


def test_neurons_of_different_gains_have_units_of_their_own() -> None:
    gains = np.array([1.0, np.pi / 9, 0.125])
    neuron = nir.LIF(tau=np.full(3, 4e-4), r=4 * gains, v_leak=np.zeros(3), v_threshold=np.ones(3))
    network = chain(np.array([[0.5, 0.25], [1.0, 3.0], [2.0, -1.0]]), neuron)
    with pytest.raises(SpikerlError, match="neuron 1 have no exact integers"):
        quantize_network(network)
    integers = quantize_network(network, rounding=True)
    check_equal(network, integers, 1 / 254)
    ratio = (as_floats(integers)[INPUT, "fire", 0] / network.connections[0].weight.toarray())[0]
    np.testing.assert_allclose(ratio, 1, rtol=1e-12)  # the neuron that has exact integers keeps them


def test_a_decay_between_the_chips_is_refused_and_rounded() -> None:
    network = chain(np.eye(2), lif(2, tau=3e-4))
    with pytest.raises(SpikerlError, match=r"'fire' loses 1365.33 / 4096 of its voltage") as refused:
        quantize_network(network)
    assert "--round" in (refused.value.hint or "")
    assert quantize_network(network, rounding=True).populations["fire"].decay_v.tolist() == [1365, 1365]


def test_a_decay_too_slow_for_the_chip_is_not_lost() -> None:
    network = chain(np.eye(1), lif(1, tau=100.0))
    integers = quantize_network(network, rounding=True)
    assert integers.populations["fire"].decay_v.tolist() == [1]
    assert rounding_report(network, integers)["fire"] > 100


def test_a_current_that_could_wrap_is_refused_or_rounded_away() -> None:
    """A current that keeps all but a 4096th: weights as large as the threshold add up to thousands of it."""
    ones = np.ones(1)
    neuron = nir.CubaLIF(
        tau_syn=ones * 0.4096, tau_mem=ones * 1e-4, r=ones, w_in=4096 * ones, v_leak=0 * ones, v_threshold=64 * ones
    )
    network = chain(np.array([[64.0, 1.0]]), neuron)
    with pytest.raises(SpikerlError, match="'fire' has a current that can leave") as refused:
        quantize_network(network)
    assert "--round" in (refused.value.hint or "")
    rounded = quantize_network(network, rounding=True)
    for integers in (quantize_network(chain(np.array([[1.0, 1.0]]), neuron)), rounded):
        _, _, voltages = run_integers(integers, np.ones((5000, 2), dtype=bool), ["fire"])
        assert (voltages["fire"] >= 0).all()


@pytest.mark.parametrize("rounding", [False, True])
def test_a_current_that_nothing_bounds_is_refused(rounding: bool) -> None:
    one, zero = np.ones(1), np.zeros(1)
    network = populated(FloatPopulation("fire", (1,), one, zero, one, zero, zero, zero, True, 1), csr_array([[1.0]]))
    with pytest.raises(SpikerlError, match="'fire' has a current that can leave"):
        quantize_network(network, rounding)


def populated(population: FloatPopulation, weight: csr_array) -> FloatNetwork:
    """One population behind the input."""
    connection = Connection(INPUT, population.name, 0, weight)
    return FloatNetwork((weight.shape[1],), {population.name: population}, (connection,), population.name, DT)


def test_a_hundred_thousand_neurons_of_a_convolution_are_quantized_in_seconds() -> None:
    """Of 16 channels with weights of no integers; at the border kernels are cut off."""
    rng = np.random.default_rng(0)
    n, channels, kernel = 100_000, 16, 9
    cut = rng.random(n) < 0.05
    weight = rng.normal(size=(channels, kernel))[np.arange(n) % channels]
    weight[cut, 0] = 0
    ones = np.ones(n)
    population = FloatPopulation("a", (n,), 0.5 * ones, 0.75 * ones, ones, 0 * ones, 0 * ones, 0 * ones, True, 1)
    started = time.monotonic()
    integers = quantize_network(populated(population, csr_array(weight)), rounding=True)
    assert time.monotonic() - started < 5
    unit = integers.populations["a"].unit
    for channel in range(channels):
        for at_border in (False, True):
            assert len(np.unique(unit[(np.arange(n) % channels == channel) & (cut == at_border)])) == 1


@fuzz(20)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_neuron_has_the_unit_that_it_would_have_alone(seed: int, rounding: bool) -> None:
    """Rows repeat, in the order of another source; thresholds, resets and decays repeat apart from them."""
    rng = np.random.default_rng(seed)
    n = 12
    kinds = rng.integers(-9, 10, (3, 4)) / 2 * (np.sqrt(2) if rounding else 1)
    weight = kinds[rng.integers(3, size=n)]
    fields = [rng.choice(values, n) for values in ((0, 0.5), (0, 0.75, 1), (0.5, 1, 3.5), (0, -0.5), (0, 1))]
    whole = FloatPopulation("a", (n,), *fields, np.zeros(n), True, 1)
    found = quantize_network(populated(whole, csr_array(weight)), rounding)
    for row in range(n):
        parts = [field[row : row + 1] for field in fields]
        alone = FloatPopulation("a", (1,), *parts, np.zeros(1), True, 1)
        expected = quantize_network(populated(alone, csr_array(weight[row : row + 1])), rounding)
        assert found.populations["a"].unit[row] == expected.populations["a"].unit[0]


def test_a_long_run_keeps_what_is_read_again_only() -> None:
    layer = IntegerLayer(np.full((40_000, 1), 2), np.zeros(40_000), 0, 4095, 4095, 1, 1.0)
    last = IntegerLayer(np.full((1, 40_000), 2), np.zeros(1), 0, 4095, 4095, 1, 1.0)
    network = network_of_integers([layer, last], ["wide", "last"], DT)
    spikes = np.ones((600, 1), dtype=bool)
    tracemalloc.start()
    output, _, _ = run_integers(network, spikes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert output.all() and peak < 12e6  # all spikes alone are 24e6


def test_spikes_that_are_not_kept_are_read_after_their_delays() -> None:
    """Of a neuron that hands its input on, each delay with a neuron of its own behind it."""
    delays = [0, 1, 3, 7, 90]
    relay = network_of_integers([IntegerLayer(np.full((1, 1), 2), np.zeros(1), 0, 4095, 4095, 1, 1.0)], ["a"], DT)
    weights = [csr_array(([2], ([row], [0])), shape=(len(delays), 1)) for row in range(len(delays))]
    connections = [Connection("a", "last", delay, weight) for delay, weight in zip(delays, weights, strict=True)]
    values = {"decay_u": 4096, "decay_v": 4096, "v_threshold": 64, "v_reset": 0, "v_initial": 0}
    last = IntegerPopulation(
        name="last", shape=(len(delays),), spiking=True, level=2, unit=np.ones(len(delays)),
        v_offset=np.zeros(len(delays)), **{name: np.full(len(delays), value) for name, value in values.items()},
    )  # fmt: skip
    network = replace(
        relay,
        populations=relay.populations | {"last": last},
        connections=(*relay.connections, *connections),
        output="last",
    )
    spikes = np.random.default_rng(0).random((120, 1)) < 0.5
    output, _, _ = run_integers(network, spikes)
    for neuron, delay in enumerate(delays):
        expected = np.concatenate([np.zeros(delay, dtype=bool), spikes[: len(spikes) - delay, 0]])
        np.testing.assert_array_equal(output[:, neuron], expected, err_msg=str(delay))


@pytest.mark.parametrize("record", [[], ["fire"]])
def test_what_cannot_be_kept_is_refused_by_name_and_not_laid_out(record: list[str]) -> None:
    network = network_of_integers([IntegerLayer(np.full((9000, 1), 2), np.zeros(9000), 0, 0, 0, 1, 1.0)], ["fire"], DT)
    steps = 20_000 if record else 150_000
    with pytest.raises(SpikerlError, match=f"'fire': .* 9000 neurons in {steps} time steps take 1.* GiB") as refused:
        run_integers(network, np.zeros((steps, 1), dtype=bool), record)
    assert refused.value.hint


def test_a_voltage_that_clips_is_refused_where_it_may_not() -> None:
    layer = IntegerLayer(np.full((1, 1), -256), np.zeros(1), 7, 4095, 0, 1, 1.0)  # -2^21 a time step
    network = network_of_integers([layer], ["fire"], DT)
    spikes = np.array([0, 0, 1, 1, 1, 1, 1], dtype=bool)[:, None]
    run_integers(network, spikes)
    run_integers(network, spikes[:-2], clips=False)
    with pytest.raises(SpikerlError, match="'fire': its voltage leaves the chip's 24 bits at time step 5"):
        run_integers(network, spikes, clips=False)


def test_rounding_that_is_far_off_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def warned(tau: float) -> list[str]:
        caplog.clear()
        graph = nir.NIRGraph(
            {"in": nir.Input(np.array([1])), "fire": lif(1, tau), "out": nir.Output(np.array([1]))},
            [("in", "fire"), ("fire", "out")],
        )
        with caplog.at_level(logging.WARNING, "spikerl"):
            integers_of_graph(order_graph(graph, 1e-4), rounding=True)
        return [record.getMessage() for record in caplog.records]

    assert warned(3e-4) == []
    assert warned(0.5) == ["NIR node 'fire': the nearest integers are off by up to 22.1 %"]  # 1 in 4096 for 1 in 5000

"""Lowered NIR networks on Lava: every spike and every voltage as the reference arithmetic has them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from nir_graphs import IntegerCase, fuzz, integer_cases
from scipy.sparse import csr_array

from simulators.lava.client import WorkerClient, group_members
from simulators.lava.graph_client import run_network
from simulators.lava.graph_wire import pack_network
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.integer_network import run_integers
from spikerl_deploy.loihi import STATE_LIMIT, STATE_SHIFT, THRESHOLD_MAX
from spikerl_deploy.network import INPUT, ONE, Connection, IntegerNetwork, IntegerPopulation

UNIT = 1 << STATE_SHIFT
TOP = THRESHOLD_MAX * UNIT


@pytest.fixture(scope="module")
def worker(lava_folder: Path) -> Iterator[WorkerClient]:
    """One worker for many networks: it takes longer to start than they do to run."""
    client = WorkerClient(lava_folder, 120)
    yield client
    client.close()
    assert group_members(client.process.pid) == []


def population(name: str, level: int, size: int, spiking: bool = True, **fields: object) -> IntegerPopulation:
    """Neurons that keep nothing and spike on any input, but for what is given."""
    defaults = {"decay_u": 4096, "decay_v": 4096, "v_threshold": UNIT, "v_reset": 0, "v_initial": 0}
    values = {key: np.broadcast_to(value, size).astype(np.int64) for key, value in (defaults | fields).items()}
    return IntegerPopulation(
        name, (size,), **values, spiking=spiking, level=level, unit=np.ones(size), v_offset=np.zeros(size)
    )


def network(n_in: int, populations: list[IntegerPopulation], connections: list[Connection]) -> IntegerNetwork:
    return IntegerNetwork((n_in,), {p.name: p for p in populations}, tuple(connections), populations[-1].name, 1e-3)


def agree(worker: WorkerClient, net: IntegerNetwork, spikes: np.ndarray) -> dict[str, np.ndarray]:
    """Run both, compare everything, and return Lava's spikes and voltages [T, 2, n]."""
    found = run_network(worker, net, spikes, list(net.populations), shared=True)
    _, fired, voltage = run_integers(net, spikes, list(net.populations))
    for key, p in net.populations.items():
        if p.spiking:
            np.testing.assert_array_equal(found[key][:, 0], fired[key], err_msg=key)
        np.testing.assert_array_equal(found[key][:, 1], voltage[key], err_msg=key)
    return found


def relays() -> tuple[IntegerNetwork, list[tuple[int, int, int]]]:
    """Three populations that hand a spike on at once, and one neuron behind each (level, delay) for every other level.

    Level 0 is the input; the spikes of the input reach all levels in the same time step.
    """
    weight = csr_array(np.array([[100]]))
    populations = [population(f"relay{level}", level, 1) for level in (1, 2, 3)]
    sources = [INPUT, "relay1", "relay2", "relay3"]
    connections = [Connection(sources[level], f"relay{level + 1}", 0, weight) for level in range(3)]
    cases = []
    for target in (1, 2, 3):
        ways = [(s, d) for s in range(4) for d in (0, 1, 2, 5) if d > 0 or s < target]
        populations.append(population(f"target{target}", target, len(ways)))
        for neuron, (source, delay) in enumerate(ways):
            one = csr_array(([100], ([neuron], [0])), shape=(len(ways), 1))
            connections.append(Connection(sources[source], f"target{target}", delay, one))
            cases.append((target, neuron, delay))
    return network(1, populations, connections), cases


def test_a_spike_crosses_every_pair_of_levels_after_its_delay_and_no_sooner(worker: WorkerClient) -> None:
    net, cases = relays()
    spikes = np.array([0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0], dtype=bool)[:, None]
    found = agree(worker, net, spikes)
    assert len(cases) > 40
    for target, neuron, delay in cases:
        expected = np.concatenate([np.zeros(delay), spikes[:, 0]])[: len(spikes)]
        np.testing.assert_array_equal(found[f"target{target}"][:, 0, neuron], expected, err_msg=str((target, neuron)))


def test_the_constant_begins_after_its_delay_and_stays(worker: WorkerClient) -> None:
    net = network(
        2,
        [population("a", 1, 3, decay_v=0, v_threshold=TOP)],
        [Connection(ONE, "a", delay, csr_array(([2], ([i], [0])), shape=(3, 1))) for i, delay in enumerate((0, 1, 4))],
    )
    found = agree(worker, net, np.zeros((8, 2), dtype=bool))
    steps = np.arange(1, 9)[:, None] - [0, 1, 4]
    np.testing.assert_array_equal(found["a"][:, 1], 2 * UNIT * np.maximum(steps, 0))


def test_currents_wrap_and_voltages_clip_just_below_the_highest_threshold_and_above_it(worker: WorkerClient) -> None:
    """An input of 2^21 a time step, from which nothing decays, into a voltage that keeps nothing."""
    unit = STATE_LIMIT // 4
    weights = csr_array(np.array([[128], [-128]]))
    net = network(
        1,
        [
            population("silent", 1, 2, spiking=False, decay_u=0),
            population("spiking", 1, 2, decay_u=0, v_threshold=TOP, v_reset=[-7, 1 - STATE_LIMIT]),
        ],
        [Connection(INPUT, name, 0, weights, 8) for name in ("silent", "spiking")],
    )
    found = agree(worker, net, np.ones((9, 1), dtype=bool))
    up = [1, 2, 3, 4, -3, -2, -1, 0, 1]  # 2^23 is kept, and clips; beyond it wraps
    down = [-1, -2, -3, 4, 3, 2, 1, 0, -1]  # -2^23 wraps
    current = np.array([up, down]).T * unit
    np.testing.assert_array_equal(found["silent"][:, 1], np.minimum(current, STATE_LIMIT - 1))
    np.testing.assert_array_equal(found["spiking"][:, 0], current == STATE_LIMIT)
    np.testing.assert_array_equal(found["spiking"][3, 1], [-7, 1 - STATE_LIMIT])


@pytest.mark.parametrize("lowest", [-256, -2])
def test_mantissas_all_of_one_sign_keep_their_value(worker: WorkerClient, lowest: int) -> None:
    """Lava would clip -256 to -255 where it takes weights for inhibitory."""
    net = network(
        2,
        [population("a", 1, 2, decay_v=0)],
        [Connection(INPUT, "a", 0, csr_array(np.array([[lowest, lowest], [lowest, 0]])), 1)],
    )
    found = agree(worker, net, np.array([[1, 0], [1, 1]], dtype=bool))
    np.testing.assert_array_equal(found["a"][:, 1], 2 * UNIT * lowest * np.array([[1, 1], [3, 2]]))


def test_a_negative_exponent_rounds_each_connection_down(worker: WorkerClient) -> None:
    weight = csr_array(np.array([[6], [-6]]))
    net = network(
        1,
        [population("a", 1, 2, v_threshold=TOP)],
        [Connection(source, "a", 0, weight, -2) for source in (INPUT, ONE, ONE)],
    )
    found = agree(worker, net, np.array([[1], [0]], dtype=bool))
    np.testing.assert_array_equal(found["a"][:, 1], np.array([[3, -6], [2, -4]]) * UNIT)


def test_connections_in_the_same_place_add_up_beyond_one_mantissa(worker: WorkerClient) -> None:
    weight = csr_array(np.array([[254, -256]]))
    net = network(
        2,
        [population("a", 1, 1, v_threshold=TOP)],
        [Connection(INPUT, "a", 1, weight, exponent) for exponent in (0, 0, 0, 2, 2)],
    )
    found = agree(worker, net, np.array([[1, 0], [0, 1], [1, 1]], dtype=bool))
    np.testing.assert_array_equal(found["a"][:, 1, 0], [0, 254 * 11 * UNIT, -256 * 11 * UNIT])


def test_states_and_delays_go_on_across_requests_and_start_afresh_with_each_graph(worker: WorkerClient) -> None:
    net = network(
        1,
        [population("a", 1, 1, decay_u=4000, decay_v=40, v_threshold=50 * UNIT, v_initial=-9 * UNIT)],
        [
            Connection(INPUT, "a", 70, csr_array(np.array([[44]])), -1),
            Connection("a", "a", 3, csr_array(np.array([[-30]])), 0),
            Connection(INPUT, "a", 10**9, csr_array(np.array([[44]])), -1),
        ],
    )
    spikes = np.random.default_rng(0).random((200, 1)) < 0.7
    first, again = (agree(worker, net, spikes)["a"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not first[:70, 0].any()
    assert 10 < first[:, 0].sum() < 120


def test_populations_that_nothing_ties_to_the_input_run_too(worker: WorkerClient) -> None:
    net = network(
        1,
        [
            population("alone", 1, 2, decay_v=2048, v_initial=[4096 * UNIT, -4096 * UNIT], v_threshold=500 * UNIT),
            population("behind", 2, 1),
        ],
        [Connection("alone", "behind", 1, csr_array(np.array([[64, 0]])))],
    )
    found = agree(worker, net, np.zeros((6, 1), dtype=bool))
    np.testing.assert_array_equal(found["behind"][:, 0, 0], [0, 1, 0, 0, 0, 0])


def test_a_graph_that_never_ran_makes_way_for_the_next(worker: WorkerClient) -> None:
    net, _ = relays()
    fields, arrays = pack_network(net)
    worker.request({"op": "open_graph", "recorded": ["target3"], **fields}, "opened", arrays)
    agree(worker, net, np.ones((2, 1), dtype=bool))


@fuzz(12)
@given(case=integer_cases())
def test_random_networks_agree_on_every_spike_and_voltage(worker: WorkerClient, case: IntegerCase) -> None:
    agree(worker, case.network, case.spikes)


def test_a_process_of_lava_that_dies_while_a_graph_runs_is_an_error_soon(lava_folder: Path) -> None:
    net, _ = relays()
    client = WorkerClient(lava_folder, 60)
    run_network(client, net, np.zeros((1, 1), dtype=bool), ["target1"])
    worker = psutil.Process(client.process.pid)
    lava = [child for child in worker.children() if "resource_tracker" not in " ".join(child.cmdline())]
    lava[-1].kill()
    started = time.monotonic()
    with pytest.raises(SpikerlError, match="lava worker failed"):
        client.request({"op": "run_graph"}, "states", {"values": np.zeros((4, 1), dtype=bool)})
    assert time.monotonic() - started < 10
    assert group_members(client.process.pid) == []

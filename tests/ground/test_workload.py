"""Operation counts by hand, against a loop over every spike and synapse, and as the document that reports hold."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nir_graphs import fuzz

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.workload import EpisodeCounts, Workload, count_episodes, count_workload, workload_document

WEIGHTS = (np.array([[1, 0, 2], [3, 0, 0]]), np.array([[0, 5]]))  # fan-outs 2, 0, 1 and 0, 1
TOTALS = (np.array([10, 9, 8]), np.array([4, 6]), np.array([7]))  # in two control steps of five time steps


def by_hand(**options: object) -> Workload:
    return count_workload(TOTALS, WEIGHTS, 2, 5, **{"weight_bits": 8, "control_step_s": 0.05} | options)


def test_a_network_by_hand() -> None:
    workload = by_hand()
    first, second = workload.layers
    assert asdict(first) == {
        "name": "layer 1", "n_in": 3, "neurons": 2, "synapses": 3, "input_events": 27 / 2,
        "effective_acs": (10 * 2 + 9 * 0 + 8 * 1) / 2, "effective_macs": 0.0, "dense": 6 * 5, "spikes": 5.0,
        "updates_active": 5.0, "updates_inactive": 5.0, "connection_sparsity": 3 / 6, "activation_sparsity": 10 / 20,
    }  # fmt: skip
    assert asdict(second) == {
        "name": "layer 2", "n_in": 2, "neurons": 1, "synapses": 1, "input_events": 5.0,
        "effective_acs": 3.0, "effective_macs": 0.0, "dense": 2 * 5, "spikes": 3.5,
        "updates_active": 3.5, "updates_inactive": 1.5, "connection_sparsity": 1 / 2, "activation_sparsity": 3 / 10,
    }  # fmt: skip
    assert (first.firing_rate, second.firing_rate) == (5 / 10, 3.5 / 5)
    assert (workload.input_neurons, workload.input_spikes) == (3, 27 / 2)
    assert (workload.synaptic_operations, workload.dense, workload.spikes) == (17.0, 40, 8.5)
    assert (workload.neurons, workload.updates_active, workload.updates_inactive) == (3, 8.5, 6.5)
    assert (workload.overhead_steps, workload.overhead_updates) == (2, 6)


def test_the_papers_network_at_a_tenth_of_its_spikes() -> None:
    """170-256-256-60, T 5, a tenth of all neurons spiking in each time step: 62 thousand operations."""
    sizes = (170, 256, 256, 60)
    weights = [np.ones((n_out, n_in)) for n_in, n_out in itertools.pairwise(sizes)]
    totals = [np.full(n, 5) for n in sizes]  # of 10 control steps
    workload = count_workload(totals, weights, 10, 5, weight_bits=32, control_step_s=None)
    assert workload.synaptic_operations == 0.1 * 5 * (170 * 256 + 256 * 256 + 256 * 60) == 62208
    assert workload.dense == 5 * (170 * 256 + 256 * 256 + 256 * 60)
    assert workload.updates_active + workload.updates_inactive == 5 * 572
    assert workload.overhead_updates == 3 * 572
    assert [layer.activation_sparsity for layer in workload.layers] == [0.9, 0.9, 0.9]


@pytest.mark.parametrize(("bits", "weights"), [(32, 32), (8, 8), (3, 3), (5, 5)])
def test_the_footprint_in_bytes(bits: int, weights: int) -> None:
    footprint = by_hand(weight_bits=bits).footprint
    assert (footprint.weight_bits, footprint.weights) == (bits, weights)  # 8 weights, zero or not
    assert (footprint.biases, footprint.neuron_states) == (12, 24)
    assert footprint.total == weights + 36


def test_a_footprint_of_broken_bytes_is_rounded_up() -> None:
    totals = (np.array([0]), np.array([0]))
    assert count_workload(totals, [np.ones((1, 1))], 1, 1, weight_bits=3, control_step_s=None).footprint.weights == 1


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Spikes [E, K, T, n] of the input and each layer, and weights, some of them zero."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(1, 6), min_size=2, max_size=4))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4)))
    spikes = [rng.random((*shape, n)) < draw(st.sampled_from((0.0, 0.3, 1.0))) for n in sizes]
    weights = [rng.integers(-1, 2, (n_out, n_in)) for n_in, n_out in itertools.pairwise(sizes)]
    return spikes, weights


@fuzz(40)
@given(runs())
def test_counts_are_those_of_a_loop_over_spikes_and_synapses(run: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
    spikes, weights = run
    episodes, control, steps, _ = spikes[0].shape
    operations = np.zeros((episodes, len(weights)), dtype=int)
    for layer, weight in enumerate(weights):
        for episode, _, _, source in np.argwhere(spikes[layer]):
            for target in range(len(weight)):
                operations[episode, layer] += bool(weight[target, source])
    inferences = episodes * control
    workload = count_workload(
        [raster.sum(axis=(0, 1, 2)) for raster in spikes],
        weights,
        inferences,
        steps,
        weight_bits=8,
        control_step_s=None,
    )
    assert [layer.effective_acs for layer in workload.layers] == [n / inferences for n in operations.sum(axis=0)]
    for layer, weight, raster in zip(workload.layers, weights, spikes[1:], strict=True):
        assert layer.updates_active == raster.sum() / inferences
        assert layer.updates_inactive == (~raster).sum() / inferences
        assert layer.activation_sparsity == (~raster).mean()
        assert layer.connection_sparsity == (weight == 0).mean()
    counts = count_episodes([raster.sum(axis=(1, 2)) for raster in spikes], weights)
    assert counts.synaptic_operations == tuple(operations.sum(axis=1))
    assert counts.spikes == tuple(sum(raster[e].sum() for raster in spikes[1:]) for e in range(episodes))
    assert counts.input_spikes == tuple(spikes[0][e].sum() for e in range(episodes))


def test_totals_beyond_32_bits_are_exact() -> None:
    steps = 1_000_000_000
    totals = (np.array([3 * steps + 1, 0]), np.array([5 * steps]))
    workload = count_workload(totals, [np.ones((1, 2))], steps, 5, weight_bits=8, control_step_s=None)
    assert workload.synaptic_operations == (3 * steps + 1) / steps
    assert workload.layers[0].updates_inactive == 0


def test_the_document_scales_an_inference_to_a_second_and_to_an_episode() -> None:
    document = workload_document(by_hand(), EpisodeCounts((20, 14), (10, 7), (15, 12)))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    inference = document["per_inference"]
    assert inference == {
        "synaptic_operations": 17.0, "effective_acs": 17.0, "effective_macs": 0.0, "dense": 40, "spikes": 8.5,
        "input_spikes": 13.5, "updates_active": 8.5, "updates_inactive": 6.5, "overhead_updates": 6,
    }  # fmt: skip
    assert document["per_second"] == {key: pytest.approx(20 * value) for key, value in inference.items()}
    episode = document["per_episode"]
    assert episode["mean"] == inference  # two control steps, two episodes
    assert episode["mean"]["synaptic_operations"] == np.mean(episode["synaptic_operations"])
    assert document["input"] == {"neurons": 3, "spikes": 13.5, "activation_sparsity": 0.1}
    assert document["layers"][1]["firing_rate"] == 0.7
    assert document["footprint"]["total"] == 8 + 12 + 24
    unknown = workload_document(by_hand(control_step_s=None), EpisodeCounts((34,), (17,), (27,)))
    assert unknown["per_second"] is None
    assert unknown["per_episode"]["mean"]["spikes"] == 17


@pytest.mark.parametrize(
    ("totals", "weights", "control_steps", "time_steps", "message"),
    [
        (TOTALS, WEIGHTS, 0, 5, "0 control steps of 5"),
        (TOTALS, WEIGHTS, 2, 0, "2 control steps of 0"),
        (TOTALS, WEIGHTS[:1], 2, 5, r"\[\(2, 3\)\] do not fit spikes of \[3, 2, 1\]"),
        (TOTALS, (WEIGHTS[0].T, WEIGHTS[1]), 2, 5, "do not fit"),
        (TOTALS, WEIGHTS, 1, 5, "input holds a neuron with 10 spikes in 5 time steps"),
        ((TOTALS[0], np.array([4, -6]), TOTALS[2]), WEIGHTS, 2, 5, "layer 1 holds a neuron with -6 spikes"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    totals: object, weights: object, control_steps: int, time_steps: int, message: str
) -> None:
    with pytest.raises(SpikerlError, match=message):
        count_workload(totals, weights, control_steps, time_steps, weight_bits=8, control_step_s=None)


def test_episodes_that_do_not_fit_the_weights_are_refused() -> None:
    with pytest.raises(SpikerlError, match="do not fit"):
        count_episodes([total[None] for total in TOTALS], WEIGHTS[::-1])

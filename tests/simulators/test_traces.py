"""Traces of a report against the arithmetic that backends run, and against the rollout that was recorded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import quantized_policy, random_policy, random_spikes

from simulators.fixed import FixedBackend
from simulators.registry import make_backend
from simulators.rollout import Rollout, rollout
from simulators.traces import (
    TRACE_STEPS,
    choose_neurons,
    layer_voltages,
    membranes_document,
    rates_document,
    spikes_document,
    threshold_of,
)
from spikerl_deploy.float_core import run_floats
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.policy import Policy

ENV = "InvertedPendulum-v5"


def recorded(policy: Policy, backend: str = "fixed", batch: int = 2, seeds: range = range(3)) -> Rollout:
    with make_backend(backend, device="cpu").open(policy, batch) as session:
        return rollout(session, ENV, seeds, record=TRACE_STEPS)


def test_integer_voltages_are_those_that_the_reference_core_goes_through() -> None:
    layers = quantized_policy().integers
    spikes = random_spikes(1, (7, 3, 40))
    seen: list[np.ndarray] = []
    rasters = IntegerCore(layers, 7)(spikes, watch=lambda _, v: seen.append(v.copy()))
    for index, layer in enumerate(layers):
        voltages, spikes = layer_voltages(layer, spikes)
        assert (spikes == rasters[index]).all() and spikes.any() and not spikes.all()
        assert (voltages == np.array(seen[7 * index : 7 * (index + 1)])).all()


@pytest.mark.parametrize("weight_exp", [-6, 7])
def test_integer_voltages_hold_where_the_state_is_shifted_right_wraps_or_clips(weight_exp: int) -> None:
    layer = replace(quantized_policy().integers[0], weight_exp=weight_exp, vth=1 if weight_exp < 0 else 100_000)
    spikes = random_spikes(2, (9, 4, 40), rate=0.9)
    (expected,) = IntegerCore([layer], 9)(spikes)
    assert (layer_voltages(layer, spikes)[1] == expected).all() and expected.any()


def test_float_voltages_give_the_spikes_of_the_float_core() -> None:
    layers, spikes = random_policy().layers, random_spikes(3, (6, 2, 40))
    for layer, expected in zip(layers, run_floats(layers, spikes), strict=True):
        voltages, spikes = layer_voltages(layer, spikes)
        assert (spikes == expected).all()
        assert ((voltages > threshold_of(layer)) == expected).all()


def test_events_are_the_recorded_spikes_of_the_first_episode() -> None:
    result = recorded(quantized_policy())
    document = spikes_document(result)
    steps = min(TRACE_STEPS, result.lengths[0])
    assert (document["control_steps"], document["time_steps"], document["seed"]) == (steps, 5, 0)
    for layer, raster in zip(document["layers"], (result.inputs, *result.rasters), strict=True):
        drawn = np.zeros((steps * 5, layer["neurons"]), dtype=bool)
        drawn[layer["time"], layer["neuron"]] = True
        assert (drawn.reshape(steps, 5, -1) == raster[:steps, 0]).all() and drawn.any()


def test_the_next_episode_of_the_slot_is_not_shown() -> None:
    result = recorded(quantized_policy(), batch=1)
    short = replace(result, lengths=(3, *result.lengths[1:]))
    assert len(result.inputs) > 3
    assert spikes_document(short)["control_steps"] == 3
    assert membranes_document(quantized_policy(), FixedBackend(), short)["control_steps"] == 3


def test_nothing_recorded_is_nothing_shown() -> None:
    policy = quantized_policy()
    with FixedBackend().open(policy) as session:
        result = rollout(session, ENV, [0])
    assert spikes_document(result) is None
    assert membranes_document(policy, FixedBackend(), result) is None


@pytest.mark.parametrize("name", ["fixed", "torch"])
def test_traces_cross_their_threshold_exactly_where_the_backend_spiked(name: str) -> None:
    policy = quantized_policy()
    result = recorded(policy, name)
    document = membranes_document(policy, make_backend(name, device="cpu"), result)
    assert f"every spike is as recorded on {name}" in document["what"]
    assert document["backend"] == {"fixed": "fixed", "torch": "float32"}[name]
    assert len(document["layers"]) == 3
    for layer, raster in zip(document["layers"], result.rasters, strict=True):
        flat = raster[: document["control_steps"], 0].reshape(-1, raster.shape[-1])
        assert layer["traces"] and len(layer["threshold"]) == len(layer["traces"])
        for threshold, trace in zip(layer["threshold"], layer["traces"], strict=True):
            assert trace["spikes"] == np.flatnonzero(flat[:, trace["neuron"]]).tolist()
            assert np.flatnonzero(np.array(trace["voltage"]) > threshold).tolist() == trace["spikes"]


def test_spikes_that_differ_from_the_recorded_ones_are_counted() -> None:
    policy = quantized_policy()
    result = recorded(policy)
    last = result.rasters[-1].copy()
    last[0, 0, 0, :2] ^= True
    changed = replace(result, rasters=(*result.rasters[:-1], last))
    assert "all but 2 spikes are as recorded" in membranes_document(policy, FixedBackend(), changed)["what"]


def test_rates_are_spikes_over_all_time_steps() -> None:
    result = recorded(quantized_policy())
    document = rates_document(result, 5)
    assert [layer["name"] for layer in document] == ["input", "layer 1", "layer 2", "layer 3"]
    for layer, total in zip(document, result.spike_totals, strict=True):
        assert layer["rates"] == pytest.approx(total / (5 * result.control_steps), abs=1e-6)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_chosen_are_the_most_active_the_median_active_and_a_silent_neuron(counts: list[int]) -> None:
    chosen = choose_neurons(np.array(counts))
    assert len(set(chosen)) == len(chosen) <= 3
    active, silent = sorted(count for count in counts if count), [i for i, count in enumerate(counts) if not count]
    assert (silent[:1] == chosen[-1:]) if silent else all(counts[i] for i in chosen)
    if active:
        assert counts[chosen[0]] == active[-1]
        assert active[(len(active) - 1) // 2] in [counts[i] for i in chosen[:2]]

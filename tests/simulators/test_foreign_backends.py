"""Policies in other projects' runtimes, through their own NIR readers: the same spikes as the integers."""

from __future__ import annotations

import importlib.metadata
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from foreign_support import RUNTIMES, installed
from support import naive_core, quantized_policy, random_policy, random_spikes

from simulators.conformance import compare_sessions
from simulators.fixed import FixedBackend
from simulators.registry import make_backend
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy_file import load_policy


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_trained_policy_spikes_like_its_integers(name: str, double_pendulum: Path) -> None:
    policy = load_policy(double_pendulum)
    inputs = random_spikes(0, (10, 8, policy.time_steps, policy.n_in))
    with installed(name).open(policy, 8) as foreign, FixedBackend().open(policy, 8) as fixed:
        compared = compare_sessions(fixed, foreign, inputs)
    assert compared.exact, compared
    assert compared.spikes > 10_000


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("seed", range(3))
def test_a_float_policy_spikes_as_its_equations_say(name: str, seed: int) -> None:
    policy = random_policy(seed, obs_dim=9, hidden=(64, 48), time_steps=20)
    spikes = random_spikes(seed, (3, 20, 90))
    with installed(name).open(policy, 3) as session:
        record = session.infer(spikes, rasters=True)
    assert record.rasters is not None
    for b in range(3):
        naive = naive_core(policy.layers, spikes[b])
        for ours, counts, expected in zip(record.rasters, record.counts, naive, strict=True):
            np.testing.assert_array_equal(ours[b], expected)
            np.testing.assert_array_equal(counts[b], expected.sum(axis=0))


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_deployed_weights_run_not_the_trained_ones(name: str) -> None:
    policy, backend = quantized_policy(bits=3), installed(name)
    spikes = random_spikes(1, (1, 5, 40))
    with backend.open(policy) as session:
        rasters = session.infer(spikes, rasters=True).rasters
        assert session.policy is policy
    assert rasters is not None
    assert not np.array_equal(naive_core(policy.as_trained().layers, spikes[0])[0], rasters[0][0])
    np.testing.assert_array_equal(naive_core(policy.layers, spikes[0])[0], rasters[0][0])
    assert backend.runs(policy) == "float32 weights of the NIR graph"
    for ours, layer in zip(backend.layer_weights(policy), policy.layers, strict=True):
        np.testing.assert_array_equal(ours, layer.weight)


@pytest.mark.parametrize("name", RUNTIMES)
def test_control_steps_and_episodes_do_not_touch_each_other(name: str) -> None:
    policy, backend = quantized_policy(), installed(name)
    spikes = random_spikes(2, (4, 5, 40))
    with backend.open(policy, 4) as many, backend.open(policy, 1) as one:
        first = many.infer(spikes)
        many.infer(random_spikes(3, (4, 5, 40), 0.9))
        again = many.infer(spikes)
        for x, y in zip(first.counts, again.counts, strict=True):
            np.testing.assert_array_equal(x, y)
        for b in range(4):
            for x, y in zip(first.counts, one.infer(spikes[b : b + 1]).counts, strict=True):
                np.testing.assert_array_equal(x[b], y[0])
    assert first.output_counts.any()
    assert first.rasters is None


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_neuron_without_memory_runs(name: str) -> None:
    policy = random_policy(4)
    layers = tuple(replace(layer, current_decay=0.0, voltage_decay=0.0) for layer in policy.layers)
    policy, spikes = replace(policy, layers=layers), random_spikes(4, (1, 5, 40))
    with installed(name).open(policy) as session:
        rasters = session.infer(spikes, rasters=True).rasters
    assert rasters is not None
    for ours, expected in zip(rasters, naive_core(layers, spikes[0]), strict=True):
        np.testing.assert_array_equal(ours[0], expected)


def test_snntorch_takes_its_own_time_step_only() -> None:
    policy = replace(random_policy(), dt=1e-3)
    for use in (installed("snntorch").check, installed("snntorch").open):
        with pytest.raises(SpikerlError, match="NIR node 'lif1' .* takes dt = 0.0001 s only, not 0.001 s"):
            use(policy)
    installed("snntorch").check(random_policy())


@pytest.mark.parametrize("name", ["norse", "spikingjelly"])
def test_others_take_any_time_step(name: str) -> None:
    policy, spikes = random_policy(), random_spikes(5, (2, 5, 40))
    counts = []
    for dt in (1e-4, 1e-3):
        with installed(name).open(replace(policy, dt=dt), 2) as session:
            counts.append(session.infer(spikes).output_counts)
    np.testing.assert_array_equal(counts[0], counts[1])


def test_snntorch_prints_nothing_and_keeps_no_neurons(capsys: pytest.CaptureFixture[str]) -> None:
    backend = installed("snntorch")
    import snntorch

    before = len(snntorch.SpikingNeuron.instances)
    with backend.open(random_policy()) as session:
        session.infer(random_spikes(6, (1, 5, 40)))
    assert len(snntorch.SpikingNeuron.instances) == before
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("name", RUNTIMES)
def test_what_is_not_installed_in_this_version_is_not_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    other = {name: "9.9"}
    monkeypatch.setattr(importlib.metadata, "version", lambda wanted: other.get(wanted) or real(wanted))
    backend = make_backend(name)
    state = backend.availability()
    assert not state.ready
    assert f"{name} 9.9 is installed" in state.detail
    with pytest.raises(SpikerlError, match=f"backend '{name}': {name} 9.9 is installed") as caught:
        backend.open(random_policy())
    assert caught.value.hint == f"spikerl backends install {name}"

    def nothing(wanted: str) -> str:
        raise importlib.metadata.PackageNotFoundError(wanted)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    assert "is not installed" in backend.availability().detail
    with pytest.raises(SpikerlError, match="is not installed"):
        backend.check(random_policy())


def test_runtimes_leave_no_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    backends = [installed(name) for name in RUNTIMES]
    with caplog.at_level(logging.WARNING):
        for backend in backends:
            backend.open(random_policy()).close()
    assert not caplog.records

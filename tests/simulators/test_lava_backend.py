"""Lava, run for real: every spike of every layer as `fixed` computes it."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
from support import quantized_policy, random_spikes

from simulators.conformance import compare_sessions
from simulators.fixed import FixedBackend
from simulators.lava.backend import LavaBackend, LavaStockBackend
from simulators.protocol import Session
from simulators.rollout import rollout
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import ALWAYS_ON_THRESHOLD_MAX, IntegerLayer
from spikerl_deploy.policy import Policy, SpikingLayer
from spikerl_deploy.policy_file import load_policy

pytestmark = pytest.mark.usefixtures("lava_folder")


def integer_policy(layers: list[IntegerLayer], time_steps: int) -> Policy:
    """A core of given integers; its float layers are placeholders of the same shapes."""
    floats = tuple(SpikingLayer(np.zeros(layer.weight.shape), np.zeros(layer.weight.shape[0])) for layer in layers)
    return Policy(layers=floats, time_steps=time_steps, integers=tuple(layers), bits=8)


def random_integer_layer(
    rng: np.random.Generator, n_in: int, n_out: int, widest_bias: int = 128, **fields: int
) -> IntegerLayer:
    weight, bias = 2 * rng.integers(-128, 128, (n_out, n_in)), 2 * rng.integers(-widest_bias, widest_bias, n_out)
    defaults = {"weight_exp": 0, "du": 2047, "dv": 1024, "vth": 300}
    return IntegerLayer(weight, bias, scale=1.0, **(defaults | fields))


@pytest.mark.parametrize("backend", [LavaBackend, LavaStockBackend])
@pytest.mark.parametrize(
    ("sizes", "time_steps", "batch", "fields"),
    [
        ((12, 9), 1, 1, {}),
        ((40, 30, 20, 10), 5, 1, {"weight_exp": 2}),
        ((40, 30, 20, 10), 5, 3, {"weight_exp": 2}),
        ((12, 10, 8, 6, 4), 3, 2, {"vth": 100}),
        ((20, 16, 8), 60, 1, {"du": 400, "dv": 3000}),  # more steps than the injector's buffer holds
        ((300, 20, 8), 6, 1, {"weight_exp": 5, "vth": 8000}),  # currents that wrap, voltages that clip
        ((300, 20, 8), 6, 2, {"weight_exp": 7, "du": 100, "dv": 50}),
        ((20, 16, 8), 4, 1, {"weight_exp": -3, "vth": 5}),
        ((20, 16, 8), 4, 1, {"vth": ALWAYS_ON_THRESHOLD_MAX, "weight_exp": 4}),
        ((20, 16, 8), 5, 1, {"widest_bias": 700, "vth": 1500}),  # shared by several always-firing neurons
        ((20, 16, 8), 5, 3, {"widest_bias": 2000, "vth": 3000}),
    ],
)
def test_lava_and_fixed_agree_on_every_spike(
    backend: type[LavaBackend], sizes: tuple[int, ...], time_steps: int, batch: int, fields: dict[str, int]
) -> None:
    rng = np.random.default_rng(sum(sizes))
    policy = integer_policy(
        [random_integer_layer(rng, a, b, **fields) for a, b in itertools.pairwise(sizes)], time_steps
    )
    inputs = np.concatenate(
        [
            random_spikes(rate_index, (8, batch, time_steps, sizes[0]), rate)
            for rate_index, rate in enumerate((0.1, 0.5, 1))
        ]
    )
    with FixedBackend().open(policy, batch) as fixed, backend().open(policy, batch) as lava:
        result = compare_sessions(fixed, lava, inputs)
    assert result.exact, result
    assert result.spikes > 0
    assert result.control_steps == 24


def test_a_thousand_closed_loop_control_steps_of_the_trained_policy(double_pendulum: Path) -> None:
    """Two episodes of a policy that balances; the loop is closed on `fixed`, and Lava sees the same spikes."""
    policy = load_policy(double_pendulum)
    with FixedBackend().open(policy) as fixed:
        played = rollout(fixed, "InvertedDoublePendulum-v5", [0, 1], record=1_200)
        assert played.inputs is not None
        assert min(played.lengths) == 1000
        assert min(played.returns) > 9_000
        with LavaBackend().open(policy) as lava:
            result = compare_sessions(fixed, lava, played.inputs)
    assert result.control_steps == 1_200
    assert result.mismatches == (0, 0, 0)
    assert result.spikes > 500_000


def test_a_loop_closed_on_lava_gives_the_return_of_fixed() -> None:
    policy = quantized_policy()
    returns = []
    for backend, batch in ((FixedBackend(), 1), (LavaBackend(), 1), (LavaBackend(), 3), (LavaStockBackend(), 2)):
        with backend.open(policy, batch) as session:
            returns.append(rollout(session, "InvertedPendulum-v5", range(4)).returns)
    assert len(set(returns)) == 1


def test_a_comparison_names_the_first_divergence() -> None:
    policy = quantized_policy()
    assert policy.integers is not None
    changed = list(policy.integers)
    changed[1] = replace(changed[1], vth=changed[1].vth * 2)
    other = replace(policy, integers=tuple(changed))
    inputs = random_spikes(0, (20, 1, 5, 40), 0.5)
    a: Session
    with FixedBackend().open(policy) as a, FixedBackend().open(other) as b:
        result = compare_sessions(a, b, inputs)
    assert not result.exact
    assert result.mismatches[0] == 0
    assert result.mismatches[1] > 0
    assert result.first is not None
    layer, step, t, neuron = result.first
    with FixedBackend().open(policy) as a, FixedBackend().open(other) as b:
        rasters = [session.infer(inputs[step], rasters=True).rasters for session in (a, b)]
    assert rasters[0] is not None
    assert rasters[1] is not None
    assert rasters[0][layer][0, t, neuron] != rasters[1][layer][0, t, neuron]


def test_a_threshold_that_no_always_firing_neuron_can_pass_is_refused() -> None:
    layer = random_integer_layer(np.random.default_rng(0), 4, 4, vth=ALWAYS_ON_THRESHOLD_MAX + 1)
    with pytest.raises(SpikerlError, match="layer 0: threshold 8190 exceeds 8189"):
        LavaStockBackend().open(integer_policy([layer], 2))


@pytest.mark.parametrize("backend", [LavaBackend, LavaStockBackend])
@pytest.mark.parametrize("batch", [1, 2])
def test_weights_that_are_all_at_the_lowest_value_are_kept(backend: type[LavaBackend], batch: int) -> None:
    """Inhibition of -256 wraps the current, and then excites; -255 or -254 would not reach so far."""
    layer = IntegerLayer(np.full((3, 512), -256), np.zeros(3), 0, 4095, 4095, 8000, 1.0)
    policy = integer_policy([layer], 2)
    inputs = np.ones((3, batch, 2, 512), bool)
    inputs[1, :, :, 0] = False
    with FixedBackend().open(policy, batch) as fixed, backend().open(policy, batch) as lava:
        result = compare_sessions(fixed, lava, inputs)
    assert result.exact, result


@pytest.mark.parametrize("backend", [LavaBackend, LavaStockBackend])
def test_a_session_that_never_ran_closes_at_once(backend: type[LavaBackend], caplog: pytest.LogCaptureFixture) -> None:
    session = backend().open(quantized_policy())
    started = time.monotonic()
    session.close()
    assert time.monotonic() - started < 3
    assert not caplog.records


def test_stock_lava_runs_policies_only() -> None:
    with pytest.raises(SpikerlError, match="backend 'lava-stock' runs policies, not graphs"):
        LavaStockBackend().run_graph(nir.NIRGraph({}, []), np.zeros((1, 1)), 1e-4)

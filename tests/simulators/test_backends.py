"""The in-process backends, the protocol they share, and the registry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support import naive_core, quantized_policy, random_policy, random_spikes

from simulators.fixed import FixedBackend
from simulators.protocol import Backend
from simulators.registry import backend_class, backend_names, make_backend
from simulators.torch_backend import TorchBackend
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.integer_lif import integrate_reference


def test_fixed_equals_plain_integer_arithmetic_layer_by_layer() -> None:
    policy = quantized_policy(hidden=(64, 48))
    spikes = random_spikes(0, (7, 5, 40))
    with FixedBackend().open(policy, 7) as session:
        record = session.infer(spikes, rasters=True)
    assert record.rasters is not None
    for b in range(7):
        current = spikes[b].astype(np.int64)
        for layer, ours, counts in zip(policy.integers or (), record.rasters, record.counts, strict=True):
            drive = current @ layer.weight.T.astype(np.int64) + layer.bias
            current = integrate_reference(drive[:, None], layer)[:, 0].astype(np.int64)
            np.testing.assert_array_equal(ours[b], current)
            np.testing.assert_array_equal(counts[b], current.sum(axis=0))
        assert current.any()


def test_torch_runs_the_trained_weights_where_the_policy_carries_them() -> None:
    trained = random_policy()
    quantized = quantized_policy(bits=3)
    spikes = random_spikes(1, (1, 5, 40))
    for policy, layers in (
        (quantized, trained.layers),
        (replace(quantized, trained=None), quantized.layers),
        (trained, trained.layers),
    ):
        with TorchBackend("cpu").open(policy) as session:
            rasters = session.infer(spikes, rasters=True).rasters
        assert rasters is not None
        for ours, naive in zip(rasters, naive_core(layers, spikes[0]), strict=True):
            np.testing.assert_array_equal(ours[0], naive)
    assert not np.array_equal(naive_core(trained.layers, spikes[0])[0], naive_core(quantized.layers, spikes[0])[0])


def test_torch_in_bf16_rounds_its_weights() -> None:
    policy, spikes = random_policy(hidden=(64, 64)), random_spikes(1, (30, 5, 40))
    counts = []
    for bf16 in (False, True):
        with TorchBackend("cpu", bf16).open(policy, 30) as session:
            counts.append(session.infer(spikes).counts)
    different = np.mean([(a != b).mean() for a, b in zip(*counts, strict=True)])
    assert 0 < different < 0.1


@pytest.mark.parametrize("name", ["fixed", "torch"])
def test_a_row_does_not_depend_on_what_runs_beside_it(name: str) -> None:
    policy, spikes = quantized_policy(), random_spikes(2, (9, 5, 40))
    backend = make_backend(name, device="cpu")
    with backend.open(policy, 9) as many, backend.open(policy, 1) as one:
        together = many.infer(spikes)
        for b in range(9):
            alone = one.infer(spikes[b : b + 1])
            for x, y in zip(together.counts, alone.counts, strict=True):
                np.testing.assert_array_equal(x[b], y[0])


def test_every_control_step_starts_from_zero_state() -> None:
    policy, spikes = quantized_policy(), random_spikes(3, (1, 5, 40))
    with FixedBackend().open(policy) as session:
        first = session.infer(spikes)
        session.infer(random_spikes(4, (1, 5, 40), 0.9))
        again = session.infer(spikes)
    for x, y in zip(first.counts, again.counts, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", ["fixed", "torch"])
@pytest.mark.parametrize("spikes", [np.zeros((1, 5, 39), bool), np.zeros((2, 5, 40), bool), np.zeros((1, 5, 40))])
def test_input_of_another_shape_or_type_is_refused(name: str, spikes: np.ndarray) -> None:
    with (
        make_backend(name).open(quantized_policy()) as session,
        pytest.raises(SpikerlError, match="session takes bool"),
    ):
        session.infer(spikes)


@pytest.mark.parametrize("name", ["fixed", "lava"])
def test_integer_backends_refuse_a_float_policy(name: str) -> None:
    with pytest.raises(SpikerlError, match=f"backend '{name}' runs integers") as caught:
        make_backend(name).open(random_policy())
    assert caught.value.hint is not None
    assert "--bits 8" in caught.value.hint


def test_options_reach_the_backends_that_take_them() -> None:
    options = {"timeout": 5.0, "bf16": True, "device": "cpu"}
    torch_backend, lava = make_backend("torch", **options), make_backend("lava", **options)
    assert isinstance(torch_backend, TorchBackend)
    assert torch_backend.bf16
    assert lava.timeout == 5.0  # type: ignore[attr-defined]
    for bad in ({"device": "tpu"}, {"timeout": 0.0}, {"timeout": float("inf")}):
        with pytest.raises(SpikerlError):
            make_backend("torch" if "device" in bad else "lava", **bad)


def test_registry_names_its_backends_and_suggests_the_nearest() -> None:
    assert {"fixed", "lava", "torch"} <= set(backend_names())
    for name in backend_names():
        assert issubclass(backend_class(name), Backend)
        assert backend_class(name).name == name
    with pytest.raises(SpikerlError, match="unknown backend 'fixd'; there is: fixed, lava, lava-float, ") as caught:
        backend_class("fixd")
    assert caught.value.hint == "did you mean 'fixed'?"


def test_a_device_that_is_not_there_is_found_out_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for use in (TorchBackend("cuda").check, TorchBackend("cuda").open):
        with pytest.raises(SpikerlError):
            use(random_policy())
    TorchBackend("cpu").check(random_policy())


def test_operations_of_the_torch_baseline_are_those_of_the_trained_weights() -> None:
    trained, quantized = random_policy(), quantized_policy(bits=2)
    for ours, layer, rounded in zip(
        TorchBackend("cpu").layer_weights(quantized), trained.layers, quantized.layers, strict=True
    ):
        np.testing.assert_array_equal(ours, layer.weight)
        assert np.count_nonzero(rounded.weight) < np.count_nonzero(ours)
    assert "as trained" in TorchBackend("cpu").runs(quantized)

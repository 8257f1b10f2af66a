"""A policy refuses what does not fit together, naming the part."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from support import quantized_policy, random_policy

from exporters.quantize import quantize
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.policy import Normalization, Policy, PopulationDecoder, PopulationEncoder, SpikingLayer

LAYER = SpikingLayer(np.ones((3, 4)), np.zeros(3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SpikingLayer(np.ones((3, 4)), np.zeros(4)), "bias has shape"),
        (lambda: SpikingLayer(np.full((3, 4), np.nan), np.zeros(3)), "weight holds values that are not finite"),
        (lambda: SpikingLayer(np.ones(3), np.zeros(3)), "weight has 1 dimensions"),
        (lambda: SpikingLayer(np.ones((3, 4)), np.zeros(3), current_decay=1.0), "current_decay 1.0"),
        (lambda: SpikingLayer(np.ones((3, 4)), np.zeros(3), v_threshold=0.0), "v_threshold 0.0"),
        (lambda: Policy(layers=()), "no layers"),
        (
            lambda: Policy(layers=(LAYER,), dt=2e38),
            r"dt 2e\+38 / \(1 - decay 0\.75\) = 8e\+38 must be positive and finite",
        ),
        (lambda: Policy(layers=(LAYER, LAYER)), "layer 1 takes 4 inputs, layer 0 gives 3"),
        (lambda: Policy(layers=(LAYER,), time_steps=0), "time_steps 0"),
        (lambda: Normalization(np.zeros(2), np.array([1.0, 0.0])), "normalisation std must be positive"),
        (lambda: PopulationEncoder(np.zeros((2, 3)), np.zeros((2, 3))), "encoder std"),
        (lambda: PopulationEncoder(np.zeros((2, 3)), np.ones((2, 3)), "latency"), "coding 'latency'"),
        (lambda: PopulationDecoder(np.ones((1, 2)), np.zeros(1), np.ones(1), np.ones(1)), "action_high"),
        (lambda: replace(random_policy(), encoder=PopulationEncoder(np.zeros((4, 9)), np.ones((4, 9)))), "drives 36"),
        (lambda: replace(random_policy(), normalization=Normalization(np.zeros(3), np.ones(3))), "has 3 dimensions"),
        (lambda: replace(random_policy(), bits=8), "integers and bits"),
        (lambda: replace(quantized_policy(), trained=(LAYER,)), "trained do not have the shapes"),
        (lambda: IntegerLayer(np.ones((1, 1)), np.zeros(1), 0, 0, 0, 1, 1.0), "odd or outside"),
        (lambda: IntegerLayer(np.full((1, 1), 256), np.zeros(1), 0, 0, 0, 1, 1.0), "odd or outside"),
        (lambda: IntegerLayer(np.zeros((1, 1)), np.zeros(1), 8, 0, 0, 1, 1.0), "weight_exp 8"),
        (lambda: IntegerLayer(np.zeros((1, 1)), np.zeros(1), 0, 0, 0, 1 << 17, 1.0), "vth 131072"),
    ],
)
def test_misfits_are_refused_by_name(build: object, message: str) -> None:
    with pytest.raises(SpikerlError, match=message):
        build()  # type: ignore[operator]


SCALARS = {
    "v_threshold": lambda value: SpikingLayer(np.ones((3, 4)), np.zeros(3), v_threshold=value),
    "encoder threshold": lambda value: PopulationEncoder(np.zeros((2, 3)), np.ones((2, 3)), threshold=value),
    "normalisation clip": lambda value: Normalization(np.zeros(2), np.ones(2), value),
    "dt": lambda value: Policy(layers=(SpikingLayer(LAYER.weight, LAYER.bias, 0.0, 0.0),), dt=value),
}


@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan"), 1e-60, 1e-40, 1e300])
def test_a_scalar_that_float32_does_not_hold_is_refused_by_name_and_value(name: str, value: float) -> None:
    with pytest.raises(SpikerlError, match=re.escape(f"policy: {name} {value} must be positive and finite")):
        SCALARS[name](value)


@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("value", [float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)])
def test_the_extremes_of_float32_are_accepted(name: str, value: float) -> None:
    SCALARS[name](value)


def test_arrays_of_a_policy_cannot_be_changed() -> None:
    policy = random_policy()
    with pytest.raises(ValueError, match="read-only"):
        policy.layers[0].weight[0, 0] = 1.0


def test_sizes_run_from_input_to_output() -> None:
    assert random_policy().sizes == (40, 24, 20, 10)


def test_the_trained_policy_is_the_float_policy_before_quantization() -> None:
    source = random_policy()
    trained = quantize(source, 4, encoder_bits=4)[0].as_trained()
    assert trained.layers is source.layers
    assert trained.encoder is source.encoder
    assert (trained.integers, trained.bits, trained.trained, trained.trained_encoder) == (None, None, None, None)
    assert (trained.decoder, trained.normalization) == (source.decoder, source.normalization)
    assert source.as_trained().layers is source.layers
    assert source.as_trained().encoder is source.encoder


def test_a_quantized_policy_without_its_trained_layers_runs_what_it_has() -> None:
    policy = replace(quantized_policy(), trained=None)
    trained = policy.as_trained()
    assert trained.layers is policy.layers
    assert trained.encoder is policy.encoder
    assert trained.integers is None


def test_misfits_of_a_quantized_policy_are_refused_by_name() -> None:
    policy = quantized_policy()
    assert policy.integers is not None
    with pytest.raises(SpikerlError, match="the integers do not have the shapes of the core"):
        replace(policy, integers=policy.integers[:-1])
    with pytest.raises(SpikerlError, match="the integers do not have the shapes of the core"):
        replace(policy, integers=(policy.integers[0],) * 3)
    with pytest.raises(SpikerlError, match="encoder drives 36 inputs, the core has 40"):
        replace(policy, trained_encoder=PopulationEncoder(np.zeros((4, 9)), np.ones((4, 9))))
    for change in ({"bits": None}, {"integers": None}):
        with pytest.raises(SpikerlError, match="integers and bits come together"):
            replace(policy, **change)

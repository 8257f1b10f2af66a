"""The torch actor against the framework-free policy that it exports, and its encoder against the NumPy codec."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from simulators.torch_backend import TorchBackend
from spikerl_deploy.codec import decode, encode
from spikerl_deploy.policy import Normalization, Policy, PopulationEncoder
from training.actor import ENCODER_THRESHOLD, MIN_ENCODER_STD, PopulationEncoderModule, Spaces, SpikingActor
from training.normalizer import RunningNormalizer
from training.settings import Settings

SPACES = Spaces(3, np.float32([-1, -0.5, 2]), np.float32([1, 4, 2.25]))


def actor(seed: int = 0, gain: float = 5.0, **settings: object) -> SpikingActor:
    """An actor with receptive fields off their initial grid, and weights wide enough for every layer to spike."""
    torch.manual_seed(seed)
    made = SpikingActor(SPACES, Settings(**{"hidden": (24, 16), "population": 7} | settings))
    with torch.no_grad():
        made.encoder.mean += 0.1 * torch.randn_like(made.encoder.mean)
        made.encoder.std *= 1 + 0.5 * torch.rand_like(made.encoder.std)
        for layer in made.layers:
            layer.weight *= gain
        made.decoder_weight *= 3
    return made


def run_policy(policy: Policy, observation: np.ndarray) -> np.ndarray:
    """Actions of a policy by the deployment path: NumPy codec around a float backend."""
    spikes = encode(policy, observation, [])
    with TorchBackend(device="cpu").open(policy, len(observation)) as session:
        counts = session.infer(spikes).output_counts
    assert policy.decoder is not None
    return decode(counts, policy.time_steps, policy.decoder)


@pytest.mark.parametrize("time_steps", [2, 5])
@pytest.mark.parametrize("hidden", [(24,), (24, 16)])
def test_actions_equal_those_of_the_exported_policy(time_steps: int, hidden: tuple[int, ...]) -> None:
    made = actor(hidden=hidden, time_steps=time_steps, current_decay=0.25, voltage_decay=0.5, v_threshold=0.75)
    rng = np.random.default_rng(0)
    normalizer = RunningNormalizer(3, 2.0, torch.device("cpu"))
    for row in rng.normal([0, 5, -1], [1, 3, 0.2], (100, 3)):
        normalizer.observe(row)
    normalizer.refresh()
    raw = rng.normal([0, 5, -1], [1, 3, 0.2], (64, 3)).astype(np.float32)
    with torch.no_grad():
        actions = made(normalizer(torch.from_numpy(raw))).numpy()
    np.testing.assert_allclose(run_policy(made.to_policy(normalizer.snapshot(), "x"), raw), actions, atol=1e-5)
    assert len(np.unique(actions.round(4), axis=0)) > 10, "the test distinguishes nothing"


def test_actions_lie_within_each_dimensions_own_bounds_and_reach_them() -> None:
    made = actor()
    with torch.no_grad():
        middle = made(torch.zeros(5, 3))
        made.decoder_bias.fill_(50.0)
        high = made(torch.randn(5, 3))
        made.decoder_bias.fill_(-50.0)
        low = made(torch.randn(5, 3))
    np.testing.assert_allclose(high, np.tile(SPACES.action_high, (5, 1)), rtol=1e-6)
    np.testing.assert_allclose(low, np.tile(SPACES.action_low, (5, 1)), rtol=1e-6)
    assert (middle.numpy() > SPACES.action_low).all() and (middle.numpy() < SPACES.action_high).all()


def test_the_encoders_spikes_equal_the_numpy_codecs() -> None:
    module = actor(time_steps=8).encoder
    observation = torch.randn(200, 3) * 2
    mean, std = module.mean.detach().numpy(), module.std.detach().numpy()
    with torch.no_grad():
        ours = module(observation).numpy().swapaxes(0, 1) > 0
    policy = actor(time_steps=8).to_policy(Normalization(np.zeros(3), np.ones(3), clip=100.0), "x")
    theirs = encode(policy, observation.numpy(), [])
    # torch's and NumPy's exp differ in the last bit: leave out what comes that close to the threshold
    exact = np.exp(-0.5 * ((observation.numpy()[..., None].astype(float) - mean) / std) ** 2).reshape(200, -1)
    level, clear = np.zeros_like(exact), np.ones(exact.shape, bool)
    for _ in range(8):
        level += exact
        clear &= abs(level - ENCODER_THRESHOLD) > 1e-5
        level -= ENCODER_THRESHOLD * (level > ENCODER_THRESHOLD)
    assert clear.mean() > 0.99 and 0.05 < ours.mean() < 0.5
    np.testing.assert_array_equal(ours.swapaxes(1, 2)[clear], theirs.swapaxes(1, 2)[clear])


def test_each_observation_dimension_drives_its_own_population() -> None:
    module = PopulationEncoderModule(3, Settings(population=5))
    with torch.no_grad():
        centred = module(torch.tensor([[-3.0, 0.0, 3.0]])).sum(0).reshape(3, 5)
    assert centred.argmax(1).tolist() == [0, 2, 4]
    assert centred.max(1).values.tolist() == [5, 5, 5]


def test_the_gradient_passes_straight_through_the_spikes_to_the_activation() -> None:
    module = actor(time_steps=4).encoder
    observation = torch.randn(6, 3, requires_grad=True)
    weight = torch.randn(4, 6, 21)
    (module(observation) * weight).sum().backward()
    got = [observation.grad, module.mean.grad, module.std.grad]
    activation = torch.exp(-((observation[..., None] - module.mean) ** 2) / (2 * module.std**2)).reshape(6, 21)
    expected = torch.autograd.grad((activation * weight.sum(0)).sum(), [observation, module.mean, module.std])
    for mine, reference in zip(got, expected, strict=True):
        assert reference.abs().max() > 0.01
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("coding", ["regular", "poisson"])
def test_input_spikes_are_zeros_and_ones_with_and_without_gradient(coding: str) -> None:
    module = actor(coding=coding).encoder
    observation = torch.randn(50, 3)
    torch.manual_seed(1)
    with_gradient = module(observation).detach()
    torch.manual_seed(1)
    with torch.no_grad():
        without = module(observation)
    assert set(with_gradient.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(with_gradient, without)


def test_poisson_spikes_are_independent_draws_at_the_rate_of_the_activation() -> None:
    module = actor(coding="poisson", time_steps=10_000).encoder
    observation = torch.randn(2, 3)
    with torch.no_grad():
        spikes = module(observation)
        activation = torch.exp(-0.5 * ((observation[..., None] - module.mean) / module.std) ** 2).flatten(1)
    torch.testing.assert_close(spikes.mean(0), activation, rtol=0, atol=0.025)
    centred = spikes - spikes.mean(0)
    variance = (activation * (1 - activation)).clamp_min(0.01)
    assert ((centred[1:] * centred[:-1]).mean(0) / variance).abs().max() < 0.06  # from step to step
    assert ((centred[:, 0] * centred[:, 1]).mean(0) / variance.amax(0)).abs().max() < 0.06  # from row to row


def test_a_collapsed_receptive_field_is_the_same_in_training_and_in_the_policy() -> None:
    made = actor()
    with torch.no_grad():
        made.encoder.std[0, 0] = -0.2
    policy = made.to_policy(Normalization(np.zeros(3), np.ones(3)), "x")
    assert policy.encoder is not None
    assert policy.encoder.std[0, 0] == np.float32(MIN_ENCODER_STD)
    observation = np.float32([[policy.encoder.mean[0, 0], 0.3, -0.3]])
    np.testing.assert_allclose(
        run_policy(policy, observation), made(torch.from_numpy(observation)).detach().numpy(), atol=1e-5
    )


def test_every_parameter_of_the_actor_is_trained() -> None:
    made = actor(time_steps=5)
    made(torch.randn(200, 3)).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_the_policy_carries_the_actors_constants_and_is_a_copy() -> None:
    made = actor(coding="poisson", time_steps=3, current_decay=0.1, voltage_decay=0.2, v_threshold=0.3)
    policy = made.to_policy(Normalization(np.zeros(3), np.ones(3)), "Some-v0")
    first = policy.layers[0].weight.copy()
    with torch.no_grad():
        made.layers[0].weight.zero_()
    np.testing.assert_array_equal(policy.layers[0].weight, first)
    assert policy.sizes == (21, 24, 16, 21)
    assert {(la.current_decay, la.voltage_decay, la.v_threshold) for la in policy.layers} == {(0.1, 0.2, 0.3)}
    assert (policy.time_steps, policy.env_id) == (3, "Some-v0")
    assert isinstance(policy.encoder, PopulationEncoder) and policy.encoder.coding == "poisson"


def test_exporting_leaves_the_arrays_it_was_given_writable() -> None:
    spaces = Spaces(2, np.float32([-1]), np.float32([1]))
    SpikingActor(spaces, Settings(hidden=(4,))).to_policy(Normalization(np.zeros(2), np.ones(2)), "x")
    assert spaces.action_low.flags.writeable

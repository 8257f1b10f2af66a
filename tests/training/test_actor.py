"""The torch actor against the framework-free policy that it exports, and its encoder against the NumPy codec."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from simulators.torch_backend import TorchBackend
from spikerl_deploy.codec import decode, encode
from spikerl_deploy.policy import Normalization, Policy, PopulationEncoder
from training.actor import ENCODER_THRESHOLD, MIN_ENCODER_STD, PopulationEncoderModule, Spaces, SpikingActor
from training.mlp_actor import MLPActor
from training.normalizer import RunningNormalizer
from training.settings import Settings
from training.stacked import generators_of

SPACES = Spaces(3, np.float32([-1, -0.5, 2]), np.float32([1, 4, 2.25]))


def actor(seeds: tuple[int, ...] = (0,), gain: float = 5.0, **settings: object) -> SpikingActor:
    """An actor with receptive fields off their initial grid, and weights wide enough for every layer to spike.

    What a seed's network is does not depend on the others.
    """
    made = SpikingActor(SPACES, Settings(**{"hidden": (24, 16), "population": 7} | settings), generators_of(seeds))
    with torch.no_grad():
        for place, seed in enumerate(seeds):
            g = torch.Generator().manual_seed(100 + seed)
            made.encoder.mean[place] += 0.1 * torch.randn(made.encoder.mean.shape[1:], generator=g)
            made.encoder.std[place] *= 1 + 0.5 * torch.rand(made.encoder.std.shape[1:], generator=g)
        for weight in made.weights:
            weight *= gain
        made.decoder_weight *= 3
    return made


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run_policy(policy: Policy, observation: np.ndarray) -> np.ndarray:
    """Actions of a policy by the deployment path: NumPy codec around a float backend."""
    spikes = encode(policy, observation, [])
    with TorchBackend(device="cpu").open(policy, len(observation)) as session:
        counts = session.infer(spikes).output_counts
    assert policy.decoder is not None
    return decode(counts, policy.time_steps, policy.decoder)


@pytest.mark.parametrize("time_steps", [2, 5])
@pytest.mark.parametrize("hidden", [(24,), (24, 16)])
@pytest.mark.parametrize("seeds", [(0,), (3, 0, 8)])
def test_actions_equal_those_of_the_exported_policies(
    seeds: tuple[int, ...], time_steps: int, hidden: tuple[int, ...]
) -> None:
    made = actor(seeds, hidden=hidden, time_steps=time_steps, current_decay=0.25, voltage_decay=0.5, v_threshold=0.75)
    rng = np.random.default_rng(0)
    normalizer = RunningNormalizer(len(seeds), 3, 2.0, torch.device("cpu"))
    centres = np.arange(len(seeds))[:, None, None] * 3 + [0, 5, -1]  # each seed has seen something else
    normalizer.observe(rng.normal(centres, [1, 3, 0.2], (len(seeds), 100, 3)))
    normalizer.merge()
    raw = rng.normal(centres, [1, 3, 0.2], (len(seeds), 64, 3)).astype(np.float32)
    with torch.no_grad():
        actions = made(normalizer(torch.from_numpy(raw))).numpy()
    for i in range(len(seeds)):
        policy = made.to_policy(normalizer.snapshot(i), "x", i)
        np.testing.assert_allclose(run_policy(policy, raw[i]), actions[i], atol=1e-5)
        assert len(np.unique(actions[i].round(4), axis=0)) > 10, "the test distinguishes nothing"
    assert actions.shape == (len(seeds), 64, 3)


def test_a_seeds_actor_is_and_acts_beside_others_as_it_would_alone() -> None:
    together, o = actor((3, 0, 8)), normal(3, 40, 3)
    actions = together(o)
    for place, seed in enumerate((3, 0, 8)):
        alone = actor((seed,))
        for (name, mine), reference in zip(together.named_parameters(), alone.parameters(), strict=True):
            assert torch.equal(mine[place], reference[0]), name
        torch.testing.assert_close(actions[place], alone(o[place : place + 1])[0], rtol=1e-5, atol=1e-5)
    assert not torch.equal(together(o[:1].expand(3, -1, -1))[0], together(o[:1].expand(3, -1, -1))[1])


def test_the_action_of_one_seed_has_no_gradient_in_the_others() -> None:
    made = actor((3, 0, 8))
    made(normal(3, 40, 3))[1].square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad[1].any(), name
        assert not parameter.grad[0].any() and not parameter.grad[2].any(), name


def test_layers_start_distributed_like_linear_layers_and_receptive_fields_on_a_grid() -> None:
    made = SpikingActor(SPACES, Settings(hidden=(200, 150), population=40, encoder_std=0.25), generators_of([0, 1]))
    for weight, bias, n_in in zip(made.weights, made.biases, (120, 200, 150), strict=True):
        linear = torch.nn.Linear(n_in, 200)
        assert weight.abs().max() <= n_in**-0.5 * 1.0001
        torch.testing.assert_close(weight.std(), linear.weight.std(), rtol=0.1, atol=0)
        assert 0.5 * n_in**-0.5 < bias.abs().max() <= n_in**-0.5 * 1.0001
    assert made.encoder.mean.shape == made.encoder.std.shape == (2, 3, 40)
    torch.testing.assert_close(made.encoder.mean[1, 2], torch.linspace(-3, 3, 40))
    assert (made.encoder.std == 0.25).all()
    assert 0.9 * 40**-0.5 < made.decoder_weight.abs().max() <= 40**-0.5 * 1.0001


def test_actions_lie_within_each_dimensions_own_bounds_and_reach_them() -> None:
    made = actor((0, 1))
    with torch.no_grad():
        middle = made(torch.zeros(2, 5, 3))
        made.decoder_bias.fill_(50.0)
        high = made(normal(2, 5, 3))
        made.decoder_bias.fill_(-50.0)
        low = made(normal(2, 5, 3))
    np.testing.assert_allclose(high, np.tile(SPACES.action_high, (2, 5, 1)), rtol=1e-6)
    np.testing.assert_allclose(low, np.tile(SPACES.action_low, (2, 5, 1)), rtol=1e-6)
    assert (middle.numpy() > SPACES.action_low).all() and (middle.numpy() < SPACES.action_high).all()


def test_the_encoders_spikes_equal_the_numpy_codecs() -> None:
    made = actor((0, 5), time_steps=8)
    observation = normal(2, 200, 3) * 2
    with torch.no_grad():
        spikes = made.encoder(observation).numpy() > 0
    assert spikes.shape == (2, 8, 200, 21) and 0.05 < spikes.mean() < 0.5
    for i in range(2):
        mean, std = made.encoder.mean[i].detach().numpy(), made.encoder.std[i].detach().numpy()
        policy = made.to_policy(Normalization(np.zeros(3), np.ones(3), clip=100.0), "x", i)
        theirs = encode(policy, observation[i].numpy(), [])
        # torch's and NumPy's exp differ in the last bit: leave out what comes that close to the threshold
        exact = np.exp(-0.5 * ((observation[i].numpy()[..., None].astype(float) - mean) / std) ** 2).reshape(200, -1)
        level, clear = np.zeros_like(exact), np.ones(exact.shape, bool)
        for _ in range(8):
            level += exact
            clear &= abs(level - ENCODER_THRESHOLD) > 1e-5
            level -= ENCODER_THRESHOLD * (level > ENCODER_THRESHOLD)
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(spikes[i].transpose(1, 2, 0)[clear], theirs.swapaxes(1, 2)[clear])


def test_each_observation_dimension_drives_its_own_population() -> None:
    module = PopulationEncoderModule(3, Settings(population=5))
    with torch.no_grad():
        centred = module(torch.tensor([[[-3.0, 0.0, 3.0]]])).sum(1).reshape(3, 5)
    assert centred.argmax(1).tolist() == [0, 2, 4]
    assert centred.max(1).values.tolist() == [5, 5, 5]


def test_the_gradient_passes_straight_through_the_spikes_to_the_activation() -> None:
    module = actor((0, 1), time_steps=4).encoder
    observation = normal(2, 6, 3).requires_grad_()
    weight = normal(2, 4, 6, 21, seed=1)
    (module(observation) * weight).sum().backward()
    got = [observation.grad, module.mean.grad, module.std.grad]
    mean, std = module.mean.unsqueeze(1), module.std.unsqueeze(1)
    activation = torch.exp(-((observation[..., None] - mean) ** 2) / (2 * std**2)).reshape(2, 6, 21)
    expected = torch.autograd.grad((activation * weight.sum(1)).sum(), [observation, module.mean, module.std])
    for mine, reference in zip(got, expected, strict=True):
        assert reference.abs().max() > 0.01
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"synaptic_norm": "batch"}, {"readout": "membrane"}, {"hidden": (24,)}])
def test_the_encoders_gradient_is_that_through_each_time_steps_input(settings: dict[str, object]) -> None:
    """The actor sums it over time steps before the product with the weights; the plain way is after."""
    made, observation, wanted = actor((0, 1), time_steps=4, **settings), normal(2, 9, 3), normal(2, 9, 3, seed=2)
    (made(observation, []) * wanted).sum().backward()
    got = [parameter.grad for parameter in made.parameters()]
    made.zero_grad()
    spikes = made.encoder(observation)
    output = made.core(spikes, [])[-1].mean(dim=1).unflatten(-1, made.decoder_weight.shape[1:])
    drive = (output * made.decoder_weight.unsqueeze(1)).sum(dim=-1) + made.decoder_bias.unsqueeze(1)
    (made.squash(drive) * wanted).sum().backward()
    for (name, parameter), mine in zip(made.named_parameters(), got, strict=True):
        assert mine is not None and parameter.grad is not None and parameter.grad.any(), name
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("coding", ["regular", "poisson"])
def test_input_spikes_are_zeros_and_ones_with_and_without_gradient(coding: str) -> None:
    module = actor((0, 1), coding=coding).encoder
    observation = normal(2, 50, 3)
    torch.manual_seed(1)
    with_gradient = module(observation).detach()
    torch.manual_seed(1)
    with torch.no_grad():
        without = module(observation)
    assert set(with_gradient.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(with_gradient, without)


def test_poisson_spikes_are_independent_draws_at_the_rate_of_the_activation() -> None:
    torch.manual_seed(0)
    module = actor((0, 0), coding="poisson", time_steps=10_000).encoder
    observation = normal(1, 2, 3).expand(2, -1, -1)
    with torch.no_grad():
        spikes = module(observation)
        activation = torch.exp(-0.5 * ((observation[0, ..., None] - module.mean[0]) / module.std[0]) ** 2).flatten(1)
    centred = spikes - spikes.mean(1, keepdim=True)
    variance = (activation * (1 - activation)).clamp_min(0.01)
    for seed in range(2):
        torch.testing.assert_close(spikes[seed].mean(0), activation, rtol=0, atol=0.025)
        own = centred[seed]
        assert ((own[1:] * own[:-1]).mean(0) / variance).abs().max() < 0.06  # from step to step
        assert ((own[:, 0] * own[:, 1]).mean(0) / variance.amax(0)).abs().max() < 0.06  # from row to row
    assert ((centred[0] * centred[1]).mean(0) / variance).abs().max() < 0.06  # from seed to seed


def test_a_collapsed_receptive_field_is_the_same_in_training_and_in_the_policy() -> None:
    made = actor()
    with torch.no_grad():
        made.encoder.std[0, 0, 0] = -0.2
    policy = made.to_policy(Normalization(np.zeros(3), np.ones(3)), "x")
    assert policy.encoder is not None
    assert policy.encoder.std[0, 0] == np.float32(MIN_ENCODER_STD)
    observation = np.float32([[policy.encoder.mean[0, 0], 0.3, -0.3]])
    np.testing.assert_allclose(
        run_policy(policy, observation), made(torch.from_numpy(observation)[None]).detach().numpy()[0], atol=1e-5
    )


def test_every_parameter_of_the_actor_is_trained() -> None:
    made = actor((0, 1, 2), time_steps=5)
    made(normal(3, 200, 3)).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert all(of_seed.any() for of_seed in parameter.grad), name


def test_the_policy_carries_the_actors_constants_and_is_a_copy() -> None:
    made = actor(coding="poisson", time_steps=3, current_decay=0.1, voltage_decay=0.2, v_threshold=0.3)
    policy = made.to_policy(Normalization(np.zeros(3), np.ones(3)), "Some-v0")
    assert policy.encoder is not None and policy.decoder is not None

    def arrays() -> list[np.ndarray]:
        assert policy.encoder is not None and policy.decoder is not None
        of_layers = [array for layer in policy.layers for array in (layer.weight, layer.bias)]
        return [*of_layers, policy.encoder.mean, policy.encoder.std, policy.decoder.weight, policy.decoder.bias]

    kept = [array.copy() for array in arrays()]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1.0)
    for array, before in zip(arrays(), kept, strict=True):
        np.testing.assert_array_equal(array, before)
    assert policy.sizes == (21, 24, 16, 21)
    assert {(la.current_decay, la.voltage_decay, la.v_threshold) for la in policy.layers} == {(0.1, 0.2, 0.3)}
    assert (policy.time_steps, policy.env_id) == (3, "Some-v0")
    assert isinstance(policy.encoder, PopulationEncoder) and policy.encoder.coding == "poisson"


def test_exporting_leaves_the_arrays_it_was_given_writable() -> None:
    spaces = Spaces(2, np.float32([-1]), np.float32([1]))
    made = SpikingActor(spaces, Settings(hidden=(4,)), generators_of([0]))
    made.to_policy(Normalization(np.zeros(2), np.ones(2)), "x")
    assert spaces.action_low.flags.writeable


def test_a_dense_actor_is_a_stack_of_linear_layers_and_starts_like_one() -> None:
    spaces = Spaces(60, np.float32([-1, 0]), np.float32([3, 0.5]))
    made = MLPActor(spaces, (400, 300), generators_of([3, 8]))
    observation = torch.randn(2, 9, 60, generator=torch.Generator().manual_seed(0))
    actions = made(observation)
    for seed in range(2):
        layers = [nn.Linear(60, 400), nn.Linear(400, 300), nn.Linear(300, 2)]
        for layer, weight, bias in zip(layers, made.weights, made.biases, strict=True):
            fresh, own = list(layer.parameters()), [weight[seed].T, bias[seed]]
            for mine, theirs in zip(own, fresh, strict=True):
                assert mine.shape == theirs.shape
                bound = layer.in_features**-0.5  # of both, in nn.Linear
                assert mine.abs().max() <= bound and theirs.abs().max() <= bound
                assert len(mine) < 99 or mine.abs().max() > 0.98 * bound
                theirs.data = mine.detach()
        plain = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2], nn.Tanh())
        wanted = torch.tensor([1.0, 0.25]) + torch.tensor([2.0, 0.25]) * plain(observation[seed])
        torch.testing.assert_close(actions[seed], wanted)
    alone = MLPActor(spaces, (400, 300), generators_of([8]))
    assert all(torch.equal(a[0], b[1]) for a, b in zip(alone.parameters(), made.parameters(), strict=True))
    assert made.statistics() == []

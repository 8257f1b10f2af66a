"""The closed loop on a real environment against a loop written out by hand."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from support import overflowing_policy, quantized_policy, random_policy

from exporters.quantize import quantize
from simulators.fixed import FixedBackend
from simulators.observers import ControlStep
from simulators.recording import record_observations
from simulators.rollout import choose_actions, rollout
from simulators.torch_backend import TorchBackend
from spikerl_deploy.codec import decode, encode
from spikerl_deploy.environments import make_environment
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy import Policy, PopulationDecoder

ENV = "InvertedPendulum-v5"


@pytest.mark.parametrize("coding", ["regular", "poisson"])
def test_an_episode_is_what_a_plain_loop_gives(coding: str) -> None:
    policy = quantized_policy(coding=coding)
    assert policy.decoder is not None
    with FixedBackend().open(policy) as session:
        result = rollout(session, ENV, [3, 4])
        env = gymnasium.make(ENV)
        for index, seed in enumerate((3, 4)):
            observation, _ = env.reset(seed=seed)
            generator, total, length, done = np.random.default_rng([seed, 1]), 0.0, 0, False
            while not done:
                spikes = encode(policy, observation[None], [generator])
                counts = session.infer(spikes).output_counts
                action = decode(counts, policy.time_steps, policy.decoder)[0]
                observation, reward, terminated, truncated, _ = env.step(action)
                total, length, done = total + float(reward), length + 1, terminated or truncated
            assert (result.returns[index], result.lengths[index]) == (total, length)


@pytest.mark.parametrize("coding", ["regular", "poisson"])
def test_episodes_do_not_depend_on_how_many_run_side_by_side(coding: str) -> None:
    policy = quantized_policy(coding=coding)
    results = []
    for batch in (1, 3, 8):
        with FixedBackend().open(policy, batch) as session:
            results.append(rollout(session, ENV, range(5)))
    for other in results[1:]:
        assert other.returns == results[0].returns
        assert other.lengths == results[0].lengths
        for x, y in zip(other.spike_totals, results[0].spike_totals, strict=True):
            np.testing.assert_array_equal(x, y)
    assert len(set(results[0].lengths)) > 1


def test_totals_count_the_spikes_of_running_episodes_only() -> None:
    policy = quantized_policy()
    with FixedBackend().open(policy, 2) as session:
        result = rollout(session, ENV, [0, 1, 2], record=10_000)
    assert result.inputs is not None
    assert result.spike_totals[0].sum() == result.inputs.sum()
    assert len(result.infer_seconds) == len(result.inputs)
    assert result.control_steps == sum(result.lengths)
    assert sum(total.size for total in result.spike_totals) == sum(policy.sizes)


class SeenSpikes:
    """An observer that adds up every episode's rasters: a sum of its own for `episode_spikes`."""

    def __init__(self, episodes: int, sizes: tuple[int, ...]) -> None:
        self.seen = [np.zeros((episodes, size), dtype=int) for size in sizes]

    def wants_rasters(self, episodes: object) -> bool:
        return True

    def observe(self, step: ControlStep) -> None:
        for seen, raster in zip(self.seen, (step.inputs, *step.rasters), strict=True):
            for episode, row in zip(step.episodes, step.slots, strict=True):
                seen[episode] += raster[row].sum(axis=0)


@pytest.mark.parametrize("limit", [None, 37])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_spikes_are_counted_for_each_episode(batch: int, limit: int | None) -> None:
    policy = quantized_policy()
    watcher = SeenSpikes(5, policy.sizes)
    with FixedBackend().open(policy, batch) as session:
        result = rollout(session, ENV, range(5), observers=[watcher], limit=limit)
    assert result.control_steps > 8
    for counted, seen in zip(result.episode_spikes, watcher.seen, strict=True):
        np.testing.assert_array_equal(counted, seen)
    assert all(total.any() for total in result.spike_totals)


def test_more_control_steps_than_a_byte_holds_are_counted() -> None:
    """In its time step, some input spikes nearly always."""
    policy = quantized_policy(obs_dim=17, act_dim=6, action_bound=1.0, env_id="HalfCheetah-v5")
    watcher = SeenSpikes(2, policy.sizes)
    with FixedBackend().open(policy, 2) as session:
        result = rollout(session, "HalfCheetah-v5", [0, 1], observers=[watcher], limit=1200)
    assert result.lengths == (600, 600)
    assert watcher.seen[0].max() > 256 * policy.time_steps
    for counted, seen in zip(result.episode_spikes, watcher.seen, strict=True):
        np.testing.assert_array_equal(counted, seen)


def test_progress_ends_at_the_whole() -> None:
    policy, seen = quantized_policy(), []
    with FixedBackend().open(policy, 2) as session:
        result = rollout(session, ENV, range(4), lambda *now: seen.append(now))
    assert seen[-1] == (result.control_steps, 4)


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("Hopper-v5", {}, "'Hopper-v5' observes 11 values, the policy takes 4"),
        (ENV, {"act_dim": 2}, "takes 1 actions, the policy gives 2"),
        (ENV, {"action_bound": 1.0}, "bounds actions by"),
        ("Hoper-v5", {}, "unknown environment 'Hoper-v5'"),
    ],
)
def test_an_environment_that_does_not_fit_is_refused(env_id: str, options: dict, message: str) -> None:
    policy = quantized_policy(**options)
    with FixedBackend().open(policy) as session, pytest.raises(SpikerlError, match=message):
        rollout(session, env_id, [0])


def test_discrete_actions_and_image_observations_are_refused() -> None:
    with FixedBackend().open(quantized_policy()) as session, pytest.raises(SpikerlError, match="bounded vector"):
        rollout(session, "CartPole-v1", [0])


def test_observations_are_kept_as_the_environment_gave_them() -> None:
    policy = quantized_policy(obs_dim=4)
    with FixedBackend().open(policy, 1) as session:
        long, short = (rollout(session, ENV, [3], observe=count).observations for count in (10_000, 2))
    assert long is not None
    assert short is not None
    env = make_environment(ENV)
    first, _ = env.reset(seed=3)
    env.close()
    np.testing.assert_array_equal(long[0], first)
    np.testing.assert_array_equal(short, long[:2])
    assert rollout_length(policy) == len(long)


def rollout_length(policy: Policy) -> int:
    with FixedBackend().open(policy, 1) as session:
        return rollout(session, ENV, [3]).control_steps


def test_the_trained_policy_sees_through_its_own_encoder() -> None:
    """A baseline must not run on the encoder that quantization changed."""
    source = random_policy(seed=1)
    coarse, _ = quantize(source, 8, encoder_bits=2)
    runs = []
    for policy in (source, coarse):
        with TorchBackend("cpu").open(policy, 1) as session:
            runs.append(rollout(session, ENV, [3, 4], record=5))
    assert runs[0].inputs is not None
    assert runs[1].inputs is not None
    np.testing.assert_array_equal(runs[0].inputs, runs[1].inputs)
    with FixedBackend().open(coarse, 1) as session:
        assert (rollout(session, ENV, [3], record=1).inputs != runs[0].inputs[:1]).any()


@pytest.mark.parametrize("beyond", [-20, 0, 25])
def test_recorded_are_evenly_spaced_steps_of_ten_whole_episodes_and_of_the_next_ten_if_needed(beyond: int) -> None:
    policy, parts = quantized_policy(), []
    with FixedBackend().open(policy, 10) as session:
        for seed in (100, 110):
            parts.append(rollout(session, ENV, range(seed, seed + 10), observe=10_000).observations)
    count = len(parts[0]) + beyond
    assert count > 20
    recorded = record_observations(FixedBackend(), policy, ENV, count, 100)
    played = parts[0] if beyond <= 0 else np.concatenate(parts)
    np.testing.assert_array_equal(recorded, played[np.linspace(0, len(played) - 1, count).astype(int)])
    np.testing.assert_array_equal(recorded[[0, -1]], played[[0, -1]])
    assert len(np.unique(recorded, axis=0)) == len(np.unique(played, axis=0)) - (len(played) - count)


def test_observations_of_several_episodes_begin_with_their_first_ones_and_end_at_the_asked_count() -> None:
    policy = quantized_policy()
    with FixedBackend().open(policy, 3) as session:
        whole = rollout(session, ENV, [3, 4, 5, 6], observe=10_000)
        assert whole.observations is not None
        assert len(whole.observations) == whole.control_steps
        for count in (1, 2, 3, 5, 7):
            observations = rollout(session, ENV, [3, 4, 5, 6], observe=count).observations
            np.testing.assert_array_equal(observations, whole.observations[:count])
        assert rollout(session, ENV, [3, 4]).observations is None
    env = make_environment(ENV)
    first = [env.reset(seed=seed)[0] for seed in (3, 4, 5)]
    env.close()
    np.testing.assert_array_equal(whole.observations[:3], first)
    assert whole.observations.dtype == np.float64


def test_actions_are_clipped_to_the_bounds_as_in_training() -> None:
    """Rounding alone takes the squashed action beyond bounds that are not symmetric; training clips to the bounds."""
    rng = np.random.default_rng(0)
    low = rng.uniform(-3, 0, 200).astype(np.float32)
    high = low + rng.uniform(0.1, 3, 200).astype(np.float32)
    decoder = PopulationDecoder(np.full((200, 1), 100.0), np.zeros(200), low, high)
    core = replace(random_policy(act_dim=200, population=1, obs_dim=4), decoder=decoder)
    counts = np.full((1, 200), 5, dtype=np.int32)
    squashed = decode(counts, core.time_steps, decoder)
    assert (squashed > high).any()
    chosen = choose_actions(core, counts)
    np.testing.assert_array_equal(chosen, np.clip(squashed, low, high))
    assert chosen.dtype == np.float32
    silent = PopulationDecoder(np.zeros((200, 1)), np.full(200, -100.0), low, high)
    assert (choose_actions(replace(core, decoder=silent), counts) >= low).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_simulation_that_comes_apart_is_an_error_that_names_the_step(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(gymnasium.Wrapper):
        steps = 0

        def step(self, action: np.ndarray) -> tuple:
            self.steps += 1
            observation, *rest = self.env.step(action)
            if self.steps == 3:
                observation[2] = value
            return observation, *rest

    monkeypatch.setattr("simulators.rollout.make_environment", lambda env_id: Broken(make_environment(env_id)))
    with FixedBackend().open(quantized_policy(), 2) as session:
        with pytest.raises(
            SpikerlError, match=f"value 2 of the observation is {value} after 3 control steps of seed 8"
        ):
            rollout(session, ENV, [8, 9])


def test_an_observation_of_another_shape_than_the_space_says_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nested(gymnasium.ObservationWrapper):
        def observation(self, observation: np.ndarray) -> np.ndarray:
            return observation[None]

    message = r"observes \(1, 4\) after 0 control steps of seed 7, its space says \(4,\)"
    monkeypatch.setattr("simulators.rollout.make_environment", lambda env_id: Nested(make_environment(env_id)))
    with FixedBackend().open(quantized_policy()) as session, pytest.raises(SpikerlError, match=message):
        rollout(session, ENV, [7])


class Failing(gymnasium.Wrapper):
    """Fails at the reset, or gives something else than it should at the third step."""

    def __init__(self, env: gymnasium.Env, at_reset: Exception | None = None, **third: object) -> None:
        super().__init__(env)
        self.at_reset, self.third, self.steps = at_reset, third, 0

    def reset(self, **options: object) -> tuple:
        if self.at_reset is not None:
            raise self.at_reset
        return self.env.reset(**options)

    def step(self, action: np.ndarray) -> tuple:
        self.steps += 1
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self.steps < 3:
            return observation, reward, terminated, truncated, info
        if "failure" in self.third:
            raise self.third["failure"]
        given = {"observation": observation, "reward": reward, "terminated": terminated} | self.third
        return *given.values(), truncated, *([] if "short" in self.third else [info])


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        ({"at_reset": RuntimeError("the\nsimulator died")},
         f"'{ENV}' failed at the reset of seed 8: RuntimeError: the simulator died"),
        ({"failure": KeyError("body")}, f"'{ENV}' failed after 2 control steps of seed 8: KeyError: 'body'"),
        ({"reward": None}, f"'{ENV}' failed after 2 control steps of seed 8: TypeError"),
        ({"observation": np.zeros(5)}, r"observes \(5,\) after 3 control steps of seed 8, its space says \(4,\)"),
        ({"reward": np.nan}, "the reward is nan after 3 control steps of seed 8: the simulation has come apart"),
        ({"reward": np.inf, "terminated": True}, "the reward is inf after 3 control steps of seed 8"),
        ({"reward": np.nan, "terminated": True}, "the reward is nan after 3 control steps of seed 8"),
    ],
)  # fmt: skip
def test_an_environment_that_fails_is_an_error_of_one_line_that_names_seed_and_step(
    failing: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lambda env_id: Failing(make_environment(env_id), **failing)  # noqa: E731
    monkeypatch.setattr("simulators.rollout.make_environment", made)
    with FixedBackend().open(quantized_policy(), 1) as session:
        with pytest.raises(SpikerlError, match=message) as caught:
            rollout(session, ENV, [8, 9])
    assert "\n" not in caught.value.message


@pytest.mark.filterwarnings("error")
def test_a_decoder_that_overflows_moves_nothing() -> None:
    with TorchBackend("cpu").open(overflowing_policy(), 1) as session:
        with pytest.raises(SpikerlError, match="value 0 of the action is nan after 0 control steps of seed 3: the dec"):
            rollout(session, ENV, [3])


@pytest.mark.parametrize("limit", [1, 4, 9])
def test_a_limit_ends_what_has_not_ended(limit: int) -> None:
    policy = quantized_policy()
    with FixedBackend().open(policy, 1) as session:
        whole, cut = (rollout(session, ENV, [3, 4], observe=100, limit=most) for most in (None, limit))
    assert whole.observations is not None and cut.observations is not None
    assert cut.control_steps == limit < whole.control_steps
    np.testing.assert_array_equal(cut.observations, whole.observations[:limit])

"""Settings: layering of the sources, every refusal, and the TOML form."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikerl_deploy.errors import SpikerlError
from training.setting_sources import RECIPES, recipe_path
from training.settings import Settings, describe_settings, from_sources


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ("", 100),
        ("toml", 1),
        ("env", 2),
        ("set", 3),
        ("flag", 4),
        ("toml env", 2),
        ("toml env set", 3),
        ("toml env set flag", 4),
        ("toml flag", 4),
        ("env flag", 4),
        ("toml set", 3),
    ],
)
def test_flag_beats_set_beats_environment_beats_toml_beats_default(tmp_path: Path, sources: str, expected: int) -> None:
    settings = from_sources(
        toml(tmp_path, "batch_size = 1\n") if "toml" in sources else None,
        {"SPIKERL_TRAIN_BATCH_SIZE": "2", "HOME": "/"} if "env" in sources else None,
        ["batch_size=3"] if "set" in sources else None,
        {"batch_size": 4 if "flag" in sources else None},
    )
    assert settings.batch_size == expected


def test_sources_that_set_different_things_all_count(tmp_path: Path) -> None:
    settings = from_sources(
        toml(tmp_path, "gamma = 0.5\n"), {"SPIKERL_TRAIN_HIDDEN": "[8, 4]"}, ["steps = 2e3"], {"seed": 7}
    )
    assert (settings.gamma, settings.hidden, settings.steps, settings.seed) == (0.5, (8, 4), 2000, 7)


def test_no_sources_give_the_defaults() -> None:
    assert from_sources() == Settings()


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("hidden=16", (16,)),
        ("hidden=16,8", (16, 8)),
        ("bf16=yes", True),
        ("tensorboard=FALSE", False),
        ("steps=1e6", 1_000_000),
        ("gamma=0", 0.0),
        ("stop_return=-5", -5.0),
        ("country=FRA", "FRA"),
        ("coding=poisson", "poisson"),
        ("seeds=5", 5),
        ("num_envs=8", 8),
        ("env_workers=true", True),
        ("save_replay=no", False),
        ("cuda_graphs=0", False),
        ("update_to_data=0.25", 0.25),
        ("update_to_data=2", 2.0),
        ("checkpoint_every=1e4", 10_000),
        ("compile=on", "on"),
        ("dist_backend=mpi", "mpi"),
        ("surrogate=gaussian", "gaussian"),
        ("surrogate=arctan", "arctan"),
    ],
)
def test_texts_become_the_settings_type(assignment: str, value: object) -> None:
    got = getattr(from_sources(assignments=[assignment]), assignment.partition("=")[0])
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    "assignment",
    [
        *(f"{name}={value}" for name in ("steps", "batch_size", "seed") for value in ("1.5", "many", "", "nan")),
        *(f"{name}=0" for name in ("steps", "population", "time_steps", "batch_size", "buffer_size", "policy_delay")),
        *(f"{name}=0" for name in ("update_every", "eval_every", "eval_episodes", "threads")),
        *(f"{name}=0" for name in ("encoder_range", "encoder_std", "v_threshold", "surrogate_width")),
        *(f"{name}=0" for name in ("actor_lr", "critic_lr", "observation_clip")),
        *(f"{name}=0" for name in ("seeds", "num_envs", "update_to_data", "checkpoint_every")),
        *(f"{name}=-1" for name in ("seeds", "num_envs", "update_to_data", "checkpoint_every")),
        *(f"{name}={value}" for name in ("seeds", "num_envs", "checkpoint_every") for value in ("1.5", "x", "true")),
        *(f"update_to_data={value}" for value in ("nan", "inf", "x")),
        *(f"{name}=2" for name in ("env_workers", "save_replay", "cuda_graphs")),
        *("compile=true", "compile=maybe", "dist_backend=smoke", "surrogate=atan"),
        *(f"{name}=-1" for name in ("steps", "seed", "eval_seed", "start_steps", "update_after")),
        *(f"{name}=-0.1" for name in ("explore_noise", "target_noise", "noise_clip", "actor_lr")),
        *(f"{name}={v}" for name in ("current_decay", "voltage_decay", "gamma", "polyak") for v in ("1", "-0.1")),
        *(f"{name}={v}" for name in ("gamma", "actor_lr", "stop_return") for v in ("nan", "inf", "-inf", "true", "x")),
        *("hidden=", "hidden=0", "hidden=8,-1", "hidden=8,x", "critic_hidden=8.5", "critic_hidden=[]"),
        *(f"{name}={value}" for name in ("proxy_lr", "proxy_steps", "proxy_hidden") for value in ("0", "-1", "x")),
        *("bf16=maybe", "carbon=2", "coding=morse", "surrogate=step", "device=tpu"),
    ],
)
def test_a_nonsense_value_is_refused_with_its_name_and_value(assignment: str) -> None:
    name, _, value = assignment.partition("=")
    with pytest.raises(SpikerlError) as refusal:
        from_sources(assignments=[assignment])
    assert f"'{name}'" in refusal.value.message
    shown = tuple(int(part) for part in value.split(",")) if value in ("0", "8,-1") and "hidden" in name else value
    assert value == "[]" or str(shown) in refusal.value.message


@pytest.mark.parametrize("assignment", ["steps=inf", "seed=-inf", "batch_size=1e400", "hidden=8,inf"])
def test_an_infinite_integer_is_refused(assignment: str) -> None:
    with pytest.raises(SpikerlError, match=assignment.partition("=")[0]):
        from_sources(assignments=[assignment])


def test_an_integer_too_large_for_a_float_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpikerlError, match="gamma"):
        from_sources(toml(tmp_path, "gamma = 1" + "0" * 400 + "\n"))


def test_a_large_integer_is_kept_exactly() -> None:
    assert from_sources(assignments=["steps=9007199254740993"]).steps == 2**53 + 1


@pytest.mark.parametrize("name", ["seed", "eval_seed"])
def test_a_seed_that_a_generator_would_not_take_is_refused(name: str) -> None:
    assert getattr(from_sources(assignments=[f"{name}={2**32 - 1}"]), name) == 2**32 - 1
    with pytest.raises(SpikerlError, match=f"'{name}' = {2**32} "):
        from_sources(assignments=[f"{name}={2**32}"])


def test_the_seeds_follow_one_another_from_the_first() -> None:
    assert Settings().all_seeds == (0,)
    assert Settings(seed=7, seeds=3).all_seeds == (7, 8, 9)


def test_the_last_of_several_seeds_must_be_one_that_a_generator_takes() -> None:
    assert Settings(seed=2**32 - 3, seeds=3).all_seeds[-1] == 2**32 - 1
    with pytest.raises(SpikerlError, match=f"'seed' = {2**32 - 3} "):
        Settings(seed=2**32 - 3, seeds=4)


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("surrogate", {"rectangular", "sigmoid", "gaussian", "triangular", "arctan", "fast_sigmoid"}),
        ("compile", {"auto", "on", "off"}),
        ("dist_backend", {"auto", "nccl", "gloo", "mpi"}),
        ("device", {"auto", "cpu", "cuda"}),
        ("coding", {"regular", "poisson"}),
        ("actor", {"spiking", "mlp"}),
        ("target_actor", {"copy", "proxy"}),
        ("readout", {"rates", "membrane"}),
    ],
)
def test_a_choice_takes_each_of_its_values_and_lists_them_when_it_refuses(name: str, choices: set[str]) -> None:
    for choice in choices:
        assert getattr(from_sources(assignments=[f"{name}={choice}"]), name) == choice
    with pytest.raises(SpikerlError) as refusal:
        from_sources(assignments=[f"{name}=nonsense"])
    assert all(choice in refusal.value.message for choice in choices)
    assert {choice for item in describe_settings() if item["name"] == name for choice in item["choices"]} == choices


def test_one_environment_one_seed_and_one_update_a_step_are_the_defaults() -> None:
    s = Settings()
    assert (s.seeds, s.num_envs, s.env_workers, s.update_to_data, s.update_every) == (1, 1, False, 1.0, 1)
    assert (s.save_replay, s.compile, s.cuda_graphs, s.dist_backend) == (True, "auto", True, "auto")


@pytest.mark.parametrize("name", ["start_steps", "eval_every", "checkpoint_every", "stop_return"])
def test_what_a_recipe_sets_a_flag_can_unset(tmp_path: Path, name: str) -> None:
    config = toml(tmp_path, f"steps = 40_000\n{name} = 123\n")
    assert getattr(from_sources(config), name) == 123
    unset = from_sources(config, assignments=[f"{name}=none"])
    assert getattr(unset, name) == getattr(Settings(steps=40_000), name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("steps = true", "steps"),
        ("seeds = [1, 2]", "seeds"),
        ("num_envs = true", "num_envs"),
        ("compile = true", "compile"),
        ("save_replay = 'off'", "save_replay"),
        ("update_to_data = true", "update_to_data"),
        ("hidden = 5", "hidden"),
        ("hidden = [true]", "hidden"),
        ("env = 3", "env"),
        ("coding = []", "coding"),
        ("gamma = [0.9]", "gamma"),
        ("bf16 = 'on'", "bf16"),
        ("seed = 1979-05-27", "seed"),
    ],
)
def test_a_toml_value_of_the_wrong_type_is_refused(tmp_path: Path, text: str, name: str) -> None:
    with pytest.raises(SpikerlError, match=f"'{name}'"):
        from_sources(toml(tmp_path, text + "\n"))


def test_an_unknown_key_is_refused_in_every_source_and_the_nearest_suggested(tmp_path: Path) -> None:
    for sources in (
        {"config": toml(tmp_path, "batchsize = 3\n")},
        {"environment": {"SPIKERL_TRAIN_BATCHSIZE": "3"}},
        {"assignments": ["batchsize=3"]},
    ):
        with pytest.raises(SpikerlError, match="batchsize") as refusal:
            from_sources(**sources)  # type: ignore[arg-type]
        assert "batch_size" in (refusal.value.hint or "")


def test_what_is_no_assignment_no_toml_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpikerlError, match="batch_size:3"):
        from_sources(assignments=["batch_size:3"])
    with pytest.raises(SpikerlError, match=r"missing\.toml"):
        from_sources(tmp_path / "missing.toml")
    with pytest.raises(SpikerlError, match=tmp_path.name):
        from_sources(tmp_path)
    with pytest.raises(SpikerlError, match=r"settings\.toml"):
        from_sources(toml(tmp_path, "steps = = 3"))
    (tmp_path / "settings.toml").write_bytes(b"env = '\xff'\n")
    with pytest.raises(SpikerlError, match=r"settings\.toml"):
        from_sources(tmp_path / "settings.toml")


@given(
    st.builds(
        Settings,
        env=st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=12),
        hidden=st.lists(st.integers(1, 999), min_size=1, max_size=4).map(tuple),
        gamma=st.floats(0, 1, exclude_max=True),
        actor_lr=st.floats(1e-300, 1e300),
        stop_return=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        bf16=st.booleans(),
        steps=st.integers(1, 10**12),
        seeds=st.integers(1, 100),
        num_envs=st.integers(1, 100),
        env_workers=st.booleans(),
        update_to_data=st.floats(1e-6, 100),
        checkpoint_every=st.none() | st.integers(1, 10**9),
        compile=st.sampled_from(["auto", "on", "off"]),
        save_replay=st.booleans(),
    )
)
def test_settings_survive_toml(settings: Settings) -> None:
    assert Settings(**tomllib.loads(settings.to_toml())) == settings


def test_the_toml_file_of_a_run_reads_back_equal(tmp_path: Path) -> None:
    settings = Settings(env="Hopper-v5", hidden=(8,), steps=777, coding="poisson", stop_return=1.5, carbon=False)
    assert from_sources(toml(tmp_path, settings.to_toml())) == settings


@pytest.mark.parametrize(
    ("steps", "start_steps", "eval_every"),
    [(1_000_000, 10_000, 5_000), (200_000, 10_000, 5_000), (100_000, 5_000, 5_000), (40_000, 2_000, 2_000), (5, 0, 1)],
)
def test_random_steps_and_evaluation_interval_follow_the_length_of_the_run(
    steps: int, start_steps: int, eval_every: int
) -> None:
    settings = Settings(steps=steps)
    assert (settings.start_steps, settings.eval_every) == (start_steps, eval_every)
    assert settings.checkpoint_every == eval_every
    given_ones = Settings(steps=steps, start_steps=0, eval_every=17)
    assert (given_ones.start_steps, given_ones.eval_every, given_ones.checkpoint_every) == (0, 17, 17)
    assert Settings(steps=steps, eval_every=17, checkpoint_every=5).checkpoint_every == 5


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_every_recipe_that_ships_resolves_and_says_what_differs(recipe: str) -> None:
    settings = from_sources(recipe_path(recipe))
    for name, value in tomllib.loads(recipe_path(recipe).read_text()).items():
        assert asdict(settings)[name] == value


@pytest.mark.parametrize("name", ["inverted-pendulm", "../recipes/inverted-pendulum", ""])
def test_an_unknown_recipe_is_refused(name: str) -> None:
    with pytest.raises(SpikerlError, match=f"'{name}'"):
        recipe_path(name)


@pytest.mark.parametrize("assignment", ["synaptic_norm=batch", "target_actor=proxy", "readout=membrane"])
def test_what_only_a_spiking_actor_can_have_is_refused_with_a_dense_one(assignment: str) -> None:
    name, _, value = assignment.partition("=")
    assert getattr(from_sources(assignments=[assignment]), name) == value
    with pytest.raises(SpikerlError, match=f"'{name}' = '{value}' is of spiking actors, not of actor 'mlp'") as refusal:
        from_sources(assignments=[assignment], flags={"actor": "mlp"})
    plain = from_sources(assignments=[(refusal.value.hint or "").rpartition("--set ")[2]], flags={"actor": "mlp"})
    assert plain == Settings(actor="mlp")


def test_what_a_dense_actor_has_no_use_for_is_left_as_it_is() -> None:
    settings = from_sources(assignments=["coding=poisson", "time_steps=1", "batch_size=1"], flags={"actor": "mlp"})
    assert (settings.actor, settings.coding) == ("mlp", "poisson")


def test_every_setting_is_described() -> None:
    described = describe_settings()
    assert [item["name"] for item in described] == [item.name for item in fields(Settings)]
    assert all(item["doc"] for item in described)

"""PopSAN checkpoints: the policy acts as the reference equations do; anything else is refused by key and value."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from import_support import HALF_CHEETAH, PENDULUM, popsan_actions, popsan_state, popsan_stats, write_popsan

from exporters.importers.popsan import PopsanConstants, import_popsan
from simulators.torch_backend import TorchBackend
from spikerl_deploy.codec import decode, encode, normalise, population_activation
from spikerl_deploy.environments import EnvironmentSpec
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy import Policy


def spec_of(sizes: tuple[int, int], high: Any = 1.0, low: Any = -1.0) -> EnvironmentSpec:
    ones = np.ones(sizes[1], dtype=np.float32)
    return EnvironmentSpec(sizes[0], low * ones, high * ones, None, None)


def actions_of(policy: Policy, observations: np.ndarray) -> np.ndarray:
    assert policy.decoder is not None
    with TorchBackend("cpu").open(policy, len(observations)) as session:
        return decode(session.infer(encode(policy, observations, [])).output_counts, policy.time_steps, policy.decoder)


def observations_of(stats: list[np.ndarray], count: int = 200) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (stats[0] + 1.5 * np.sqrt(stats[1]) * rng.standard_normal((count, len(stats[0])))).astype(np.float32)


@pytest.mark.parametrize("hidden", [(64,), (64, 48), (20, 30, 25)])
@pytest.mark.parametrize("sizes", [HALF_CHEETAH, PENDULUM])
def test_the_policy_acts_as_the_reference_equations_do(
    tmp_path: Path, sizes: tuple[int, int], hidden: tuple[int, ...]
) -> None:
    state, stats = popsan_state(*sizes, hidden), popsan_stats(sizes[0])
    model, mean_var = write_popsan(tmp_path, sizes, state, stats)
    policy, notes = import_popsan(model, mean_var, "Env-v0", spec_of(sizes, 2.0, -2.0))
    observations = observations_of(stats)
    reference = popsan_actions(state, stats, observations, 2.0)
    assert reference.std(axis=0).min() > 0.05  # every action depends on the observation
    np.testing.assert_allclose(actions_of(policy, observations), reference, atol=1e-5)
    assert (policy.env_id, policy.time_steps, notes) == ("Env-v0", 5, ())


def wrapped(state: dict[str, torch.Tensor], wrapper: str | None, prefix: str) -> Any:
    renamed = {prefix + key: value for key, value in state.items()}
    return {wrapper: renamed, "epoch": 3} if wrapper else renamed


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "actor"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrapped_and_distributed_checkpoints_give_the_same_policy(
    tmp_path: Path, wrapper: str | None, prefix: str
) -> None:
    state = popsan_state(*PENDULUM)
    model, mean_var = write_popsan(tmp_path, PENDULUM, wrapped(state, wrapper, prefix))
    policy, _ = import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM))
    for layer, name in zip(policy.layers, ("hidden_layers.0", "hidden_layers.1", "out_pop_layer"), strict=True):
        np.testing.assert_array_equal(layer.weight, state[f"snn.{name}.weight"])
        np.testing.assert_array_equal(layer.bias, state[f"snn.{name}.bias"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("zipped", [True, False])
def test_other_precisions_and_the_file_format_of_old_torch_are_read(
    tmp_path: Path, dtype: torch.dtype, zipped: bool
) -> None:
    state = {key: value.to(dtype) for key, value in popsan_state(*PENDULUM).items()}
    model, mean_var = write_popsan(tmp_path, PENDULUM)
    torch.save(state, model, _use_new_zipfile_serialization=zipped)
    policy, _ = import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM))
    np.testing.assert_array_equal(policy.layers[0].weight, state["snn.hidden_layers.0.weight"].float())


def test_the_constants_of_the_reference_can_be_changed(tmp_path: Path) -> None:
    model, mean_var = write_popsan(tmp_path, PENDULUM)
    constants = PopsanConstants(7, 0.25, 0.5, 0.9, "poisson", 0.9, 5.0, 0.0)
    policy, _ = import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM), constants)
    layer, encoder, normalization = policy.layers[1], policy.encoder, policy.normalization
    assert encoder is not None and normalization is not None
    assert (policy.time_steps, layer.current_decay, layer.voltage_decay, layer.v_threshold) == (7, 0.25, 0.5, 0.9)
    assert (encoder.coding, encoder.threshold, normalization.clip) == ("poisson", 0.9, 5.0)
    np.testing.assert_array_equal(normalization.std, np.sqrt(popsan_stats(4)[1].astype(float)).astype(np.float32))


def test_poisson_spikes_come_at_the_rate_of_the_activation(tmp_path: Path) -> None:
    state, stats = popsan_state(*PENDULUM), popsan_stats(4)
    model, mean_var = write_popsan(tmp_path, PENDULUM, state, stats)
    policy, _ = import_popsan(
        model, mean_var, "Env-v0", spec_of(PENDULUM), PopsanConstants(time_steps=4000, coding="poisson")
    )
    observation = stats[0][None] + 0.3
    assert policy.normalization is not None and policy.encoder is not None
    activation = population_activation(normalise(observation, policy.normalization), policy.encoder)
    o = torch.from_numpy(0.3 / np.sqrt(stats[1]))[None, :, None].clamp(-3, 3)
    reference = torch.exp(-((o - state["encoder.mean"]) ** 2) / (2 * state["encoder.std"] ** 2)).flatten(1)
    np.testing.assert_allclose(activation, reference, atol=1e-5)
    rates = encode(policy, observation, [np.random.default_rng(0)]).mean(axis=1)
    np.testing.assert_allclose(rates, reference, atol=0.04)


def test_a_constant_observation_and_a_negative_std_are_read_as_the_reference_reads_them(tmp_path: Path) -> None:
    state, stats = popsan_state(*PENDULUM), popsan_stats(4)
    stats[1][2] = 0.0  # as in Ant, whose contact forces stay zero
    state["encoder.std"][0, 1] *= -1
    model, mean_var = write_popsan(tmp_path, PENDULUM, state, stats)
    policy, _ = import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM))
    observations = observations_of(stats)
    reference = popsan_actions(state, stats, observations, 1.0)
    np.testing.assert_allclose(actions_of(policy, observations), reference, atol=1e-5)
    with pytest.raises(SpikerlError, match=r"variance of observation 2 is 0\.0, not positive"):
        import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM), PopsanConstants(epsilon=0.0))


def test_a_policy_of_raw_observations_needs_no_statistics(tmp_path: Path) -> None:
    model, _ = write_popsan(tmp_path, PENDULUM)
    policy, _ = import_popsan(model, None, "Env-v0", spec_of(PENDULUM))
    assert policy.normalization is None


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (np.float32([-1]), np.float32([2]))])
def test_bounds_that_the_reference_would_not_have_honoured_are_noted(tmp_path: Path, low: Any, high: Any) -> None:
    model, mean_var = write_popsan(tmp_path, PENDULUM)
    _, notes = import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM, high, low))
    assert len(notes) == 1 and "bounds actions by [-1.0]" in notes[0]


def put(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda state: state.__setitem__(key, value)


WEIGHT = "snn.hidden_layers.1.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(WEIGHT), f"lacks key '{WEIGHT}'"),
        (lambda s: s.pop("encoder.std"), r"lacks key 'encoder\.std'"),
        (lambda s: s.pop("decoder.decoder.bias"), r"lacks key 'decoder\.decoder\.bias'"),
        (
            put("snn.hidden_layers.2000000000.weight", torch.zeros(2, 2)),
            "lacks keys 'snn.hidden_layers.2.bias', 'snn.hid",
        ),
        (put("log_std", torch.zeros(1)), "has the unknown key 'log_std'"),
        (put(WEIGHT, torch.zeros(48, 63)), rf"'{WEIGHT}' has shape \(48, 63\), expected \(48, 64\)"),
        (put(WEIGHT, torch.zeros(48)), rf"'{WEIGHT}' has shape \(48,\), 2 dimensions expected"),
        (put(WEIGHT, torch.zeros(0, 64)), rf"'{WEIGHT}' has shape \(0, 64\)"),
        (put("snn.out_pop_layer.bias", torch.zeros(8)), r"'snn.out_pop_layer.bias' has shape \(8,\), expected \(7,\)"),
        (put("encoder.mean", torch.zeros(2, 4, 10)), r"'encoder.mean' has shape \(2, 4, 10\), expected \(1, 4, 10\)"),
        (put("encoder.std", torch.ones(1, 4, 9)), r"'encoder.std' has shape \(1, 4, 9\), expected \(1, 4, 10\)"),
        (put("encoder.std", torch.zeros(1, 4, 10)), "'encoder.std' holds a zero"),
        (put("decoder.decoder.weight", torch.zeros(1, 1, 6)), "decoder reads 1 x 6 neurons, 'snn.out_pop_layer' has 7"),
        (put("decoder.decoder.weight", torch.zeros(1, 2, 7)), r"\(1, 2, 7\), expected \(1, 1, 7\)"),
        (put(WEIGHT, torch.full((48, 64), torch.nan)), f"'{WEIGHT}' holds values that are not finite"),
        (put(WEIGHT, torch.full((48, 64), 1e300, dtype=torch.float64)), f"'{WEIGHT}' holds values that are not finite"),
        (put(WEIGHT, torch.zeros(48, 64, dtype=torch.int32)), f"'{WEIGHT}' is a torch.int32 tensor"),
        (put(WEIGHT, torch.zeros(48, 64).to_sparse()), f"'{WEIGHT}' is a torch.float32 tensor in torch.sparse_coo"),
        (put(WEIGHT, torch.zeros(1, 1).expand(1 << 20, 1 << 20)), f"'{WEIGHT}' and those before it have more elem"),
        (put(WEIGHT, torch.zeros(48, 64).to(torch.float8_e4m3fn)), f"'{WEIGHT}' is a torch.float8_e4m3fn tensor"),
        (put("unknown", torch.full((3,), torch.nan)), "has the unknown key 'unknown'"),  # keys before values
        (put("unknown", [1.0]), "has the unknown key 'unknown'"),
        (put(WEIGHT, [1.0]), f"'{WEIGHT}' is a list"),
    ],
)
def test_a_checkpoint_that_is_no_popsan_actor_is_refused_by_key(tmp_path: Path, change: Any, message: str) -> None:
    state: dict[str, Any] = popsan_state(*PENDULUM)
    change(state)
    model, mean_var = write_popsan(tmp_path, PENDULUM, state)
    with pytest.raises(SpikerlError, match=message) as caught:
        import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM))
    assert caught.value.hint and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("stats", "message"),
    [
        ([np.zeros(4), -np.ones(4)], r"variance of observation 0 is -1\.0, not positive"),
        ([np.zeros(4), np.array([1, 1, np.nan, 1])], "variance holds values that are not finite"),
        ([np.full(4, 1e300), np.ones(4)], "mean holds values that are not finite in float32"),
        ([np.zeros(3), np.ones(3)], "mean has 3 values for 4 observations"),
        ([np.zeros(4), np.ones(5)], "variance has 5 values for 4 observations"),
        ([np.zeros(4)], "holds 1 arrays, mean and variance were expected"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(tmp_path: Path, stats: Any, message: str) -> None:
    model, mean_var = write_popsan(tmp_path, PENDULUM, stats=stats)
    with pytest.raises(SpikerlError, match=message):
        import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM))


def test_an_environment_of_other_sizes_is_refused(tmp_path: Path) -> None:
    model, mean_var = write_popsan(tmp_path, PENDULUM)
    with pytest.raises(
        SpikerlError, match="takes 4 observations and gives 1 actions, 'Ant-v5' has 105 and 8"
    ) as caught:
        import_popsan(model, mean_var, "Ant-v5", spec_of((105, 8)))
    assert "versions" in (caught.value.hint or "")


class Payload:
    """Runs a command wherever it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return subprocess.getoutput, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["root", "value", "key beside", "array"])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path: Path, place: str, zipped: bool) -> None:
    payload = Payload(f"touch {tmp_path / 'ran'}")
    state: dict[str, Any] = popsan_state(*PENDULUM)
    documents = {
        "root": payload,
        "value": state | {WEIGHT: payload},
        "key beside": {"state_dict": state, "config": [payload]},
        "array": state | {WEIGHT: np.array([payload], dtype=object)},
    }
    model, mean_var = write_popsan(tmp_path, PENDULUM)
    torch.save(documents[place], model, _use_new_zipfile_serialization=zipped)
    with pytest.raises(SpikerlError, match="refers to '.*', which was not run") as caught:
        import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM))
    assert not (tmp_path / "ran").exists()
    assert "weights_only" not in caught.value.message + (caught.value.hint or "")


def test_a_compression_bomb_is_refused(tmp_path: Path) -> None:
    state = popsan_state(*PENDULUM) | {WEIGHT: torch.zeros(48, 64)}
    model, mean_var = write_popsan(tmp_path, PENDULUM, state)
    with zipfile.ZipFile(model) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(model, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(SpikerlError, match="unpacks to .* bytes, more than it has"):
        import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM))


def test_tensors_that_share_their_elements_are_refused(tmp_path: Path) -> None:
    state = popsan_state(*PENDULUM, (64,) * 60)  # the right keys and shapes
    shared, bias = torch.zeros(64, 64, dtype=torch.float16), torch.zeros(64)
    for index in range(1, 60):
        state[f"snn.hidden_layers.{index}.weight"], state[f"snn.hidden_layers.{index}.bias"] = shared, bias
    model, mean_var = write_popsan(tmp_path, PENDULUM, state)
    assert model.stat().st_size < 10 * shared.nbytes
    with pytest.raises(
        SpikerlError, match=r"'snn\.hidden_layers\..*' and those before it have more elements than the fi"
    ):
        import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM))


def test_a_tensor_saved_as_the_negative_of_another_is_read(tmp_path: Path) -> None:
    state = popsan_state(*PENDULUM)
    negative = state[WEIGHT].clone()
    state[WEIGHT] = torch._neg_view(negative)
    model, mean_var = write_popsan(tmp_path, PENDULUM, state)
    policy, _ = import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM))
    np.testing.assert_array_equal(policy.layers[1].weight, -negative)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        (PopsanConstants(v_threshold=np.inf), "v_threshold inf must be positive and finite"),
        (PopsanConstants(encoder_threshold=1e-60), "encoder threshold 1e-60 must be positive and finite"),
        (PopsanConstants(clip=np.inf), "clip inf must be positive and finite"),
        (PopsanConstants(epsilon=np.inf), "epsilon inf must not be negative, and finite"),
        (PopsanConstants(current_decay=np.nan), r"current_decay nan is not in \[0, 1\)"),
    ],
)
def test_constants_that_no_file_can_hold_are_refused(tmp_path: Path, constants: PopsanConstants, message: str) -> None:
    model, mean_var = write_popsan(tmp_path, PENDULUM)
    with pytest.raises(SpikerlError, match=message) as caught:
        import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM), constants)
    assert "--help" in (caught.value.hint or "")


def test_a_voltage_decay_that_no_chip_has_is_noted(tmp_path: Path) -> None:
    model, mean_var = write_popsan(tmp_path, PENDULUM)
    _, notes = import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM), PopsanConstants(voltage_decay=0.0))
    assert len(notes) == 1 and "keep 1/4096 of the voltage" in notes[0]


def test_truncated_foreign_and_missing_checkpoints_are_refused(tmp_path: Path) -> None:
    model, mean_var = write_popsan(tmp_path, PENDULUM)
    whole = model.read_bytes()
    for content in (b"", b"hello", whole[:100], whole[: len(whole) // 2], whole[:-1]):
        model.write_bytes(content)
        with pytest.raises(SpikerlError, match="not a torch file of plain tensors"):
            import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM))
    for document, message in (([1], "holds a list"), ({}, "no tensors by name"), ({1: 2}, "no tensors by name")):
        torch.save(document, model)
        with pytest.raises(SpikerlError, match=message):
            import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM))
    model.unlink()
    with pytest.raises(SpikerlError, match="no checkpoint at"):
        import_popsan(model, mean_var, "Env-v0", spec_of(PENDULUM))

"""`spikerl quantize` and the formats of `spikerl export`, run as a user runs them."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from support import quantized_policy, random_layers, random_policy, random_spikes, run_cli, run_here

from exporters.calibrate import calibrate, compare_recorded, report_recorded
from exporters.fine_tune import fine_tune
from spikerl_deploy.cli.quantize import _collector
from spikerl_deploy.policy import Policy
from spikerl_deploy.policy_file import load_policy, save_policy


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_policy(random_policy(hidden=(16,)), tmp_path / "float.nir")
    return tmp_path / "float.nir"


def quantize(source: Path, *arguments: str) -> tuple[dict, Policy]:
    out = source.with_name("out.nir")
    done = run_cli("-q", "quantize", str(source), "-o", str(out), "--force", "--format", "json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), load_policy(out)


def test_a_policy_is_calibrated_on_its_own_closed_loop_and_trained(source: Path) -> None:
    document, policy = quantize(source, "--bits", "3", "--steps", "300", "--qat-steps", "30", "--encoder-bits", "8")
    assert document["schema"] == "spikerl.quantize/1"
    assert document["recorded"] == {"control_steps": 300, "file": None, "first_seed": 20_000}
    assert document["calibration"]["control_steps"] == 300
    assert document["qat"]["steps"] == 30
    assert document["qat"]["control_steps"] == 300 + 4 * 300
    assert [layer["observed"]["control_steps"] for layer in document["layers"]] == [300, 300]
    assert policy.bits == document["bits"] == 3
    assert policy.trained is not None
    assert policy.trained_encoder is not None
    assert policy.provenance["seed"] == 20_000
    assert document["bytes"] == source.with_name("out.nir").stat().st_size


def test_recorded_data_gives_what_the_library_gives(source: Path, tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(0, 1, (200, 4))
    np.savez(tmp_path / "data.npz", observations=data)
    document, policy = quantize(source, "--bits", "4", "--data", str(tmp_path / "data.npz"))
    wanted, _ = calibrate(load_policy(source), data, 4)
    for a, b in zip(policy.integers or (), wanted.integers or (), strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
    assert document["calibration"]["action_error"] == compare_recorded(wanted, data).action_error
    assert set(policy.provenance["made_from"]) == {"source", "data"}


def test_a_core_alone_takes_input_spikes(tmp_path: Path) -> None:
    core = tmp_path / "core.nir"
    save_policy(Policy(layers=random_layers(np.random.default_rng(0), (12, 8))), core)
    done = run_cli("quantize", str(core), "-o", str(tmp_path / "out.nir"))
    assert done.returncode == 2
    assert "the policy is a core alone and cannot play" in done.stderr
    np.savez(tmp_path / "spikes.npz", spikes=random_spikes(0, (50, 5, 12)))
    document, policy = quantize(core, "--data", str(tmp_path / "spikes.npz"), "--qat-steps", "5")
    assert document["calibration"]["action_error"] is None
    assert policy.bits == 8


def test_the_table_says_what_was_seen_and_a_dry_run_writes_nothing(source: Path, tmp_path: Path) -> None:
    done = run_cli("quantize", str(source), "--steps", "100", "--dry-run", "-o", str(tmp_path / "no.nir"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "no.nir").exists()
    for text in (
        "nothing written",
        "largest |u|, seen",
        "spikes that differ, seen",
        "calibrated on 100 control steps: actions differ by",
    ):
        assert text in " ".join(done.stdout.split()) or text in done.stdout


def npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def write_entry(path: Path, content: bytes, compression: int) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("observations.npy", content)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bits", "1"], "bits 1 is outside [2, 8]"),
        (["--bits", "9"], "bits 9 is outside [2, 8]"),
        (["--decay-bits", "0"], "decay bits 0 is outside"),
        (["--encoder-bits", "40"], "encoder bits 40 is outside"),
        (["--data", "missing.npz"], "cannot read recorded data 'missing.npz'"),
        (["--data", "pickled.npz"], "cannot read recorded data 'pickled.npz': Object arrays cannot be loaded"),
        (["--data", "other.npz"], "'other.npz' holds actions"),
        (["--data", "wide.npz"], "recorded data is float64 (10, 5), the policy takes observations [N, 4]"),
        (["--data", "text.npz"], "cannot read recorded data 'text.npz'"),
        (["--data", "array.npy"], "'array.npy' holds one array without a name"),
        (["--data", "deflate.npz"], "cannot read recorded data 'deflate.npz'"),
        (["--data", "huge.npz"], "cannot read recorded data 'huge.npz'"),
        (["--data", "complex.npz"], "'complex.npz': observations are complex128, floats were expected"),
        (["--data", "rates.npz"], "'rates.npz': spikes are float64, with other values than 0 and 1"),
        (["--data", "one.npz", "--qat-steps", "5"], "'one.npz' holds 1 control steps, too few"),
        (["--data", "one.npz", "--env", "Ant-v5"], "--env Ant-v5 concerns recording, and --data is recorded"),
        (["--env", "Hopper-v5"], "'Hopper-v5' observes 11 values, the policy takes 4"),
        (["--decay-bits", "13"], "decay bits 13 is outside"),
        (["--qat-steps", "-1"], "Invalid value for '--qat-steps'"),
    ],
)
def test_bad_input_is_one_line_a_hint_and_code_two(source: Path, arguments: list[str], message: str) -> None:
    folder = source.parent
    np.savez(folder / "pickled.npz", observations=np.array([{"a": 1}], dtype=object))
    np.savez(folder / "other.npz", actions=np.zeros(3))
    np.savez(folder / "wide.npz", observations=np.zeros((10, 5)))
    (folder / "text.npz").write_text("hello")
    np.save(folder / "array.npy", np.zeros((10, 4)))
    np.savez(folder / "complex.npz", observations=np.zeros((10, 4), complex))
    np.savez(folder / "rates.npz", spikes=np.full((10, 5, 40), 0.3))
    np.savez(folder / "one.npz", observations=np.zeros((1, 4)))
    write_entry(folder / "huge.npz", npy_header((10**12, 4)), zipfile.ZIP_STORED)
    write_entry(folder / "deflate.npz", npy_header((1_000, 4)) + bytes(32_000), zipfile.ZIP_DEFLATED)
    content = bytearray((folder / "deflate.npz").read_bytes())
    content[60:80] = b"\xff" * 20
    (folder / "deflate.npz").write_bytes(content)
    done = run_here("-q", "quantize", source.name, "-o", "out.nir", *arguments, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["Error", "Hint"]
    assert not (folder / "out.nir").exists()


def test_nothing_is_overwritten_and_it_is_found_out_at_once(source: Path) -> None:
    done = run_cli("quantize", str(source), "-o", str(source))
    assert done.returncode == 2
    assert "exists" in done.stderr
    assert "recording" not in done.stderr


@pytest.mark.parametrize(
    ("to", "name", "head"),
    [
        ("nir", "policy.nir", b"\x89HDF"),
        ("onnx", "policy.onnx", b""),
        ("netx", "policy.net", b"\x89HDF"),
        ("json", "policy.json", b"{"),
        ("c-header", "policy.h", b"/*"),
    ],
)
def test_every_format_is_written_under_its_own_name(tmp_path: Path, to: str, name: str, head: bytes) -> None:
    save_policy(quantized_policy(), tmp_path / "q.nir")
    done = run_here("export", "q.nir", "--to", to, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name).read_bytes().startswith(head)
    assert ("spikerl simulate" in done.stderr) == (to == "nir")


def test_options_of_a_format_and_a_word_on_few_bits(source: Path) -> None:
    folder = source.parent
    done = run_cli("export", source.name, "--to", "onnx", "--set", "opset=18", "-o", "a.onnx", cwd=folder)
    assert done.returncode == 0, done.stderr
    import onnx

    assert onnx.load(folder / "a.onnx").opset_import[0].version == 18
    for arguments, message in (
        (["--to", "onnx", "--set", "opset=3"], "opset 3"),
        (["--to", "onnx", "--set", "opst=18"], "unknown option of export format 'onnx' 'opst'"),
        (["--to", "nir", "--set", "opset=18"], "export format 'nir' has no options"),
        (["--to", "netx"], "spikerl"),
    ):
        failed = run_here("export", source.name, *arguments, "-o", "b", cwd=folder)
        assert failed.returncode == 2
        assert message in failed.stderr
        assert not (folder / "b").exists()
    few = run_cli("export", source.name, "--bits", "4", "-o", "c.nir", cwd=folder)
    assert "rounding alone may cost reward at 4 bits; by recorded data: spikerl quantize" in few.stderr


def test_bits_on_integers_are_refused_since_they_would_be_rounded_anew(tmp_path: Path) -> None:
    save_policy(quantized_policy(4), tmp_path / "q.nir")
    done = run_cli("export", "q.nir", "--bits", "4", "-o", "again.nir", cwd=tmp_path)
    assert done.returncode == 2
    assert "'q.nir' holds 4-bit integers; --bits 4 would round its trained weights anew" in done.stderr
    assert not (tmp_path / "again.nir").exists()


def test_a_dry_run_finds_out_what_the_format_cannot_hold(source: Path) -> None:
    done = run_cli("export", source.name, "--to", "netx", "--dry-run", cwd=source.parent)
    assert done.returncode == 2
    assert sorted(path.name for path in source.parent.iterdir()) == ["float.nir"]


def test_every_round_of_training_plays_seeds_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[tuple[str, int, int]] = []

    def record(backend: object, policy: Policy, env_id: str, steps: int, seed: int) -> np.ndarray:
        played.append((env_id, steps, seed))
        return np.zeros((steps, 4))

    monkeypatch.setattr("simulators.recording.record_observations", record)
    collect = _collector("Some-v0", 300, 20_000)
    for _ in range(4):
        collect(random_policy())
    assert {entry[:2] for entry in played} == {("Some-v0", 300)}
    assert played[0][2] == 20_000
    assert min(np.diff([seed for *_, seed in played])) >= 300 * 10  # episodes of one control step would not meet


def test_without_the_trained_policy_neither_its_layers_nor_its_encoder_are_carried(
    source: Path,
    tmp_path: Path,
) -> None:
    np.savez(tmp_path / "data.npz", observations=np.random.default_rng(0).normal(0, 1, (100, 4)))
    _, policy = quantize(source, "--data", str(tmp_path / "data.npz"), "--encoder-bits", "4", "--no-trained")
    assert policy.integers is not None
    assert (policy.trained, policy.trained_encoder) == (None, None)
    assert policy.encoder is not None


def test_what_training_gave_is_what_the_library_gives_and_what_is_reported(
    source: Path,
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(0, 1, (1_000, 2)) @ rng.normal(0, 1, (2, 4))
    np.savez(tmp_path / "data.npz", observations=data)
    arguments = ("--bits", "2", "--data", str(tmp_path / "data.npz"), "--qat-steps", "40", "--seed", "7")
    document, policy = quantize(source, *arguments)
    used, held_out = data[:900], data[900:]
    start, _ = calibrate(load_policy(source), used, 2)
    wanted, result = fine_tune(start, used, held_out, 40, seed=7)
    assert result.kept > 0
    assert document["qat"] == asdict(result)
    for a, b in zip(policy.integers or (), wanted.integers or (), strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
    reports = [asdict(report) for report in report_recorded(policy, used)]
    assert [layer["observed"]["spike_error"] for layer in document["layers"]] == [
        report["observed"]["spike_error"] for report in reports
    ]
    assert [layer["rms_error"] for layer in document["layers"]] == [report["rms_error"] for report in reports]
    assert document["layers"] != [asdict(report) for report in report_recorded(start, used)]


def test_input_spikes_may_be_zeros_and_ones_and_a_core_is_not_told_to_simulate(tmp_path: Path) -> None:
    core, spikes = tmp_path / "core.nir", random_spikes(0, (50, 5, 12))
    save_policy(Policy(layers=random_layers(np.random.default_rng(0), (12, 8))), core)
    np.savez(tmp_path / "spikes.npz", spikes=spikes.astype(np.uint8))
    done = run_cli("quantize", str(core), "--bits", "4", "--data", "spikes.npz", "-o", "out.nir", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "spikerl simulate" not in done.stderr
    wanted, _ = calibrate(load_policy(core), spikes, 4)
    for a, b in zip(load_policy(tmp_path / "out.nir").integers or (), wanted.integers or (), strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)


def test_a_policy_without_an_environment_plays_and_trains_in_the_one_that_is_named(tmp_path: Path) -> None:
    save_policy(replace(random_policy(hidden=(16,)), env_id=None), tmp_path / "float.nir")
    arguments = ("quantize", "float.nir", "--steps", "60", "--qat-steps", "5", "-o", "out.nir")
    done = run_cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    done = run_cli(*arguments, "--env", "InvertedPendulum-v5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert load_policy(tmp_path / "out.nir").integers is not None


def test_the_next_command_is_named_for_a_policy_that_can_act(source: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", observations=np.random.default_rng(0).normal(0, 1, (100, 4)))
    out = tmp_path / "next.nir"
    done = run_cli("quantize", str(source), "--data", str(tmp_path / "data.npz"), "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert f"next: spikerl simulate {out} --backend lava --compare torch" in " ".join(done.stderr.split())

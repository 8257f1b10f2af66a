"""The firmware exports: the header is compiled and runs beside the integer core; the JSON is read back strictly."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import struct
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import quantized_policy, random_layers, random_policy, random_spikes

from exporters.firmware import export_c_header, export_json
from exporters.quantize import quantize
from spikerl_deploy.codec import decode, encode
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.loihi import BIAS_NEURONS_MAX, IntegerLayer
from spikerl_deploy.policy import Normalization, Policy, SpikingLayer
from spikerl_deploy.policy_file import load_policy

CC, CXX = shutil.which("cc") or shutil.which("gcc"), shutil.which("c++") or shutil.which("g++")
needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler (cc, gcc) on PATH")
needs_cxx = pytest.mark.skipif(CXX is None, reason="no C++ compiler (c++, g++) on PATH")
WARNINGS = ["-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Werror"]
C99 = ["-std=c99", *WARNINGS]
CXX11 = ["-std=c++11", *WARNINGS]
# Undefined behaviour ends the program with a signal; the trapping form needs no run-time library.
SANITIZED = [*C99, "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]

CORE = """
#define {P}_IMPLEMENTATION
#include "policy.h"
#include <stdio.h>
static uint8_t in[{P}_T * {P}_N_IN], all[{P}_T * {P}_N_NEURONS], out[{P}_T * {P}_N_OUT];
int main(int argc, char **argv)
{{
    FILE *source = fopen(argv[1], "rb"), *target = fopen(argv[2], "wb");
    if (argc != 3 || !source || !target) return 1;
    while (fread(in, 1, sizeof in, source) == sizeof in) {{
        {p}_infer_all(in, all);
        fwrite(all, 1, sizeof all, target);
        {p}_infer(in, out);
        fwrite(out, 1, sizeof out, target);
    }}
    return fclose(target);
}}
"""
CODEC = """
#define SPIKERL_IMPLEMENTATION
#define SPIKERL_CODEC
#include "policy.h"
#include <stdio.h>
static float obs[SPIKERL_OBS_DIM], action[SPIKERL_ACT_DIM];
static uint8_t in[SPIKERL_T * SPIKERL_N_IN], out[SPIKERL_T * SPIKERL_N_OUT];
#if SPIKERL_POISSON
static float uniform[SPIKERL_T * SPIKERL_N_IN];
#endif
int main(int argc, char **argv)
{
    FILE *source = fopen(argv[1], "rb"), *target = fopen(argv[2], "wb");
    if (argc != 3 || !source || !target) return 1;
    while (fread(obs, 1, sizeof obs, source) == sizeof obs) {
#if SPIKERL_POISSON
        if (fread(uniform, 1, sizeof uniform, source) != sizeof uniform) return 1;
        spikerl_encode(obs, uniform, in);
#else
        spikerl_encode(obs, in);
#endif
        spikerl_infer(in, out);
        spikerl_decode(out, action);
        fwrite(in, 1, sizeof in, target);
        fwrite(out, 1, sizeof out, target);
        fwrite(action, 1, sizeof action, target);
    }
    return fclose(target);
}
"""


def build(folder: Path, source: str, name: str = "main.c", flags: list[str] = SANITIZED) -> Path:
    """The program that a source beside `policy.h` makes."""
    compiler = CXX if name.endswith(".cpp") else CC
    assert compiler is not None
    (folder / name).write_text(source)
    done = subprocess.run(
        [compiler, *flags, name, "-lm", "-o", "program"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "program"


def run(program: Path, data: bytes) -> bytes:
    (program.parent / "in.bin").write_bytes(data)
    done = subprocess.run([str(program), "in.bin", "out.bin"], cwd=program.parent, capture_output=True, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr!r}"
    return (program.parent / "out.bin").read_bytes()


def assert_same_spikes(
    folder: Path, policy: Policy, inputs: np.ndarray, prefix: str = "spikerl", **options: object
) -> np.ndarray:
    """Compile, run on inputs [B, T, n_in], compare every spike of every layer; returns the rasters [B, T, neurons]."""
    export_c_header(policy, folder / "policy.h", force=True, prefix=prefix)
    program = build(folder, CORE.format(P=prefix.upper(), p=prefix), **options)
    raw = np.frombuffer(run(program, inputs.astype(np.uint8).tobytes()), dtype=np.uint8)
    neurons = sum(policy.sizes[1:])
    all_layers, outputs = np.split(raw.reshape(len(inputs), -1), [policy.time_steps * neurons], axis=1)
    assert policy.integers is not None
    expected = np.concatenate(IntegerCore(policy.integers, policy.time_steps)(inputs.swapaxes(0, 1)), axis=-1)
    rasters = all_layers.reshape(len(inputs), policy.time_steps, neurons)
    np.testing.assert_array_equal(rasters, expected.swapaxes(0, 1))
    np.testing.assert_array_equal(outputs.reshape(len(inputs), policy.time_steps, -1), rasters[..., -policy.n_out :])
    return rasters


def integer_policy(layers: list[IntegerLayer], time_steps: int) -> Policy:
    """A core of given integers; its float layers are of no interest here."""
    floats = tuple(SpikingLayer(layer.weight, layer.bias) for layer in layers)
    return Policy(layers=floats, time_steps=time_steps, integers=tuple(layers), bits=8)


def random_integers(rng: np.random.Generator, n_in: int, n_out: int, **constants: int) -> IntegerLayer:
    wide = 128 * BIAS_NEURONS_MAX
    drawn = {
        "weight_exp": int(rng.integers(-8, 8)), "du": int(rng.integers(4096)), "dv": int(rng.integers(4096)),
        "vth": int(2 ** rng.uniform(0, 17)) - 1 or 1,
    } | constants  # fmt: skip
    weight, bias = 2 * rng.integers(-128, 128, (n_out, n_in)), 2 * rng.integers(-wide, wide - BIAS_NEURONS_MAX, n_out)
    return IntegerLayer(weight, bias, **drawn, scale=1.0)


@needs_cc
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("time_steps", [1, 5, 40])
def test_quantized_policies_spike_as_the_integer_core(tmp_path: Path, bits: int, time_steps: int) -> None:
    policy = quantized_policy(bits, seed=bits, time_steps=time_steps)
    rasters = assert_same_spikes(tmp_path, policy, random_spikes(bits, (6, time_steps, policy.n_in)))
    assert 0.01 < rasters.mean() < 0.99 or time_steps == 1


@needs_cc
@pytest.mark.parametrize(("current_decay", "voltage_decay"), [(0.6, 0.9), (0.9, 0.6)])
def test_decays_that_lose_bits_truncate_alike(tmp_path: Path, current_decay: float, voltage_decay: float) -> None:
    rng = np.random.default_rng(3)
    layers = random_layers(rng, (30, 24, 12), current_decay=current_decay, voltage_decay=voltage_decay)
    policy = quantize(Policy(layers=layers, time_steps=40), 8)[0]
    assert_same_spikes(tmp_path, policy, random_spikes(3, (4, 40, 30)), prefix="Robot_2")


@needs_cc
@pytest.mark.parametrize("seed", range(8))
def test_any_integers_spike_as_the_integer_core(tmp_path: Path, seed: int) -> None:
    """Random exponents, decays, thresholds and wide biases: states that wrap and clip, and shifts that round down."""
    rng = np.random.default_rng(seed)
    sizes = (60, 40, 30, 20)
    layers = [random_integers(rng, n_in, n_out) for n_in, n_out in itertools.pairwise(sizes)]
    assert_same_spikes(tmp_path, integer_policy(layers, 12), random_spikes(seed, (8, 12, 60), rate=0.5))


@needs_cc
@pytest.mark.parametrize("weight_exp", [7, -3, 0])
@pytest.mark.parametrize(("du", "dv"), [(0, 0), (4095, 4095), (0, 4095), (4095, 0)])
@pytest.mark.parametrize("vth", [1, (1 << 17) - 1])
def test_limits_of_every_constant(tmp_path: Path, weight_exp: int, du: int, dv: int, vth: int) -> None:
    """Weights at both ends into 1,100 inputs: sums pass 2^31 at exponent 7, where the chip keeps the low bits."""
    rng = np.random.default_rng(du + dv)
    weight = np.repeat([[254], [-256], [0], [254], [2]], 1100, axis=1)
    weight[3, ::2] = -256
    bias = np.array([254 * BIAS_NEURONS_MAX, -256 * BIAS_NEURONS_MAX, 254 * BIAS_NEURONS_MAX, 0, -2])
    first = IntegerLayer(weight, bias, weight_exp, du, dv, vth, 1.0)
    second = random_integers(rng, 5, 7, weight_exp=weight_exp, du=du, dv=dv, vth=vth)
    inputs = random_spikes(7, (4, 9, 1100), rate=0.5)
    inputs[0], inputs[1] = True, False
    assert_same_spikes(tmp_path, integer_policy([first, second], 9), inputs)


@needs_cc
def test_the_edges_of_wrapping_and_clipping(tmp_path: Path) -> None:
    """One neuron, five groups of inputs; at exponent 7 a mantissa is 2^13, no state decays but the current, at once.

    Twice -1022 clips the voltage at 1 - 2^23, +1024 (a current of 2^23, which does not wrap) takes it to 1, and
    2 more above the threshold of 2^14, by that 1. Then -1024 is a current of -2^23, which wraps: a spike.
    """
    groups = [[-254] * 4 + [-6], [254] * 4 + [8], [2], [-256] * 4]
    weight = np.array([[mantissa for group in groups for mantissa in group]])
    layer = IntegerLayer(weight, np.zeros(1), weight_exp=7, du=4095, dv=0, vth=256, scale=1.0)
    member = np.repeat(np.arange(4), [len(group) for group in groups])
    inputs = np.array([[member == group for group in (0, 0, 1, 2, 3, 1)]])
    rasters = assert_same_spikes(tmp_path, integer_policy([layer], 6), inputs)
    assert rasters.ravel().tolist() == [0, 0, 0, 1, 1, 1]


@needs_cc
def test_small_negative_sums_round_down_in_a_right_shift(tmp_path: Path) -> None:
    """Sums of a few units, thresholds of a few units, exponents from -8 to -1: half a unit decides a spike."""
    rng = np.random.default_rng(5)
    layers = []
    for weight_exp in range(-8, 0):
        constants = {"weight_exp": weight_exp, "du": int(rng.integers(4096)), "dv": int(rng.integers(4096)), "vth": 1}
        weight = 2 * rng.integers(-(2**-weight_exp), 2**-weight_exp, (16, 16)).clip(-128, 127)
        layers.append(IntegerLayer(weight, 2 * rng.integers(-2, 3, 16), **constants, scale=1.0))
    rasters = assert_same_spikes(tmp_path, integer_policy(layers, 30), random_spikes(5, (40, 30, 16), rate=0.5))
    assert all(0.02 < rasters[..., 16 * k : 16 * (k + 1)].mean() < 0.98 for k in range(8))


@needs_cxx
def test_the_header_is_clean_cpp_with_the_same_spikes(tmp_path: Path) -> None:
    policy = quantized_policy()
    assert_same_spikes(tmp_path, policy, random_spikes(0, (4, 5, 40)), name="main.cpp", flags=CXX11)


@needs_cc
@needs_cxx
def test_a_cpp_program_links_with_the_implementation_in_c(tmp_path: Path) -> None:
    """Other files include the header without the macro: declarations and data alone, no warning for what they leave."""
    policy = quantized_policy()
    export_c_header(policy, tmp_path / "policy.h")
    (tmp_path / "core.c").write_text('#include "policy.h"\n#define SPIKERL_IMPLEMENTATION\n#include "policy.h"\n')
    subprocess.run([str(CC), *C99, "-c", "core.c", "-o", "core.o"], cwd=tmp_path, check=True)
    (tmp_path / "main.cpp").write_text(
        '#include "policy.h"\n#include "policy.h"\nstatic spikerl_state state;\n'
        "static uint8_t in[SPIKERL_N_IN];\n"
        "int main() { spikerl_reset(&state); spikerl_step(&state, in); return state.s[0]; }\n"
    )
    subprocess.run([str(CXX), *CXX11, "main.cpp", "core.o", "-o", "program"], cwd=tmp_path, check=True)
    assert subprocess.run([str(tmp_path / "program")], check=False).returncode == 0


def run_codec(folder: Path, policy: Policy, data: bytes, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input spikes [B, T, n_in], output spikes [B, T, n_out] and actions [B, act_dim] of the compiled codec."""
    assert policy.decoder is not None
    export_c_header(policy, folder / "policy.h", force=True)
    raw = run(build(folder, CODEC), data)
    t = policy.time_steps
    form = np.dtype([
        ("in", "u1", (t, policy.n_in)), ("out", "u1", (t, policy.n_out)), ("action", "<f4", policy.decoder.act_dim)
    ])  # fmt: skip
    rows = np.frombuffer(raw, dtype=form)
    assert len(rows) == batch
    return rows["in"], rows["out"], rows["action"]


def assert_same_codec(expected: np.ndarray, policy: Policy, found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Spikes may differ where expf does in its last bit; actions are held against the spikes that were there."""
    spikes, outputs, actions = found
    mismatches = int((spikes != expected).sum())
    print(f"{mismatches} of {expected.size} input spikes differ from NumPy's")
    assert mismatches <= expected.size * 1e-4
    assert policy.integers is not None and policy.decoder is not None
    core = IntegerCore(policy.integers, policy.time_steps)(spikes.astype(bool).swapaxes(0, 1))[-1].swapaxes(0, 1)
    np.testing.assert_array_equal(outputs, core)
    counts = core.sum(axis=1)
    assert counts.any()
    np.testing.assert_allclose(actions, decode(counts, policy.time_steps, policy.decoder), atol=1e-5, rtol=0)


@needs_cc
def test_the_trained_policy_encodes_and_decodes_as_numpy_does(tmp_path: Path, double_pendulum: Path) -> None:
    policy = load_policy(double_pendulum)
    assert policy.normalization is not None
    rng = np.random.default_rng(0)
    state = rng.normal(0, 1.5, (400, 9)).astype(np.float32)  # in standard deviations; some beyond the clip at 3
    observations = (policy.normalization.mean + state * policy.normalization.std).astype(np.float32)
    expected = encode(policy, observations, [])
    assert_same_codec(expected, policy, run_codec(tmp_path, policy, observations.tobytes(), 400))


@needs_cc
@pytest.mark.parametrize("normalized", [True, False])
def test_poisson_coding_draws_from_the_given_numbers(tmp_path: Path, normalized: bool) -> None:
    policy = quantized_policy(coding="poisson", act_dim=2, env_id=None)
    policy = policy if normalized else replace(policy, normalization=None)
    observations = np.random.default_rng(1).normal(0, 1, (50, 4)).astype(np.float32)
    seeds = range(50)
    expected = encode(policy, observations, [np.random.default_rng(seed) for seed in seeds])
    draws = [np.random.default_rng(seed).random((5, 40), dtype=np.float32) for seed in seeds]
    data = b"".join(o.tobytes() + d.tobytes() for o, d in zip(observations, draws, strict=True))
    assert_same_codec(expected, policy, run_codec(tmp_path, policy, data, 50))


@needs_cc
@pytest.mark.parametrize("without", ["encoder", "decoder", "normalization"])
def test_a_policy_without_a_part_compiles_without_it(tmp_path: Path, without: str) -> None:
    policy = replace(quantized_policy(env_id=None), **{without: None})
    export_c_header(policy, tmp_path / "policy.h")
    build(
        tmp_path,
        '#define SPIKERL_IMPLEMENTATION\n#define SPIKERL_CODEC\n#include "policy.h"\nint main(void){return 0;}',
    )
    assert f"SPIKERL_HAS_{without.upper()} 0" in (tmp_path / "policy.h").read_text()


@needs_cc
def test_float_tables_read_back_to_the_same_float32(tmp_path: Path) -> None:
    """Subnormal, extreme and inexact values, through the C compiler and through JSON."""
    mean = np.array([1e-45, -3.4028235e38, 0.1, -1 / 3], np.float32)
    std = np.array([1e-38, 3.4028235e38, 1 / 7, 16777217], np.float32)
    policy = replace(quantized_policy(), normalization=Normalization(mean, std, clip=0.1))
    export_c_header(policy, tmp_path / "policy.h")
    source = (
        '#include "policy.h"\n#include <stdio.h>\nint main(void){static const float clip = SPIKERL_OBS_CLIP;'
        + "".join(
            f"fwrite({name},1,sizeof {name},stdout);"
            for name in ("spikerl_obs_mean", "spikerl_obs_std", "spikerl_field_mean")
        )
    )
    program = build(tmp_path, source + "fwrite(&clip,1,4,stdout);return 0;}")
    raw = np.frombuffer(subprocess.run([str(program)], capture_output=True, check=True).stdout, "<f4")
    assert policy.encoder is not None
    fields = policy.encoder.mean.ravel()
    np.testing.assert_array_equal(raw, np.concatenate([mean, std, fields, np.float32([0.1])]))
    export_json(policy, tmp_path / "p.json")
    read = json.loads((tmp_path / "p.json").read_text())
    np.testing.assert_array_equal(np.array(read["normalization"]["mean"]).astype(np.float32), mean)
    np.testing.assert_array_equal(np.array(read["normalization"]["std"]).astype(np.float32), std)
    np.testing.assert_array_equal(np.array(read["encoder"]["mean"]).astype(np.float32).ravel(), fields)


@needs_cc
def test_nothing_in_the_policy_leaves_the_comment(tmp_path: Path) -> None:
    hostile = "x */\n#error left the comment\n/* \\\n??/\n\u2028 /* é"
    policy = replace(
        quantized_policy(), env_id=hostile,
        provenance={"created": hostile, "made_from": {hostile: {"name": hostile, "sha256": hostile}, "other": 3}},
    )  # fmt: skip
    assert_same_spikes(tmp_path, policy, random_spikes(0, (2, 5, 40)), flags=[*SANITIZED, "-trigraphs"])
    text = (tmp_path / "policy.h").read_text()
    assert text.isascii() and "\\" not in text and "??" not in text
    assert text[: text.index("*/")].count("left the comment") == 5 == text.count("left the comment")


@needs_cc
def test_the_stated_flash_and_ram_are_those_of_the_compiler(tmp_path: Path) -> None:
    policy = quantized_policy(hidden=(23, 20))
    export_c_header(policy, tmp_path / "policy.h")
    text = (tmp_path / "policy.h").read_text()
    arrays = [line.split()[3].partition("[")[0] for line in text.splitlines() if line.startswith("static const")]
    floats = [name for name in arrays if "weight_" not in name.replace("decoder_weight", "") and "_bias_" not in name]
    sums = [" + ".join(f"sizeof {name}" for name in group) for group in (sorted(set(arrays) - set(floats)), floats)]
    program = build(
        tmp_path, '#include "policy.h"\n#include <stdio.h>\nint main(void){'
        f'printf("Flash: %d %d RAM: %d", (int)({sums[0]}), (int)({sums[1]}), (int)sizeof(spikerl_state)); return 0;}}',
    )  # fmt: skip
    core, codec, ram = (
        int(word) for word in subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.split()
        if word.isdigit()
    )  # fmt: skip
    assert f"Flash: {core} bytes of constants for the core, {codec} bytes for encoder and decoder" in text
    assert f"Static RAM: {ram} bytes" in text


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not strict JSON")


def test_json_holds_every_integer_and_its_hash(tmp_path: Path) -> None:
    policy = replace(quantized_policy(), provenance={"eval_return": float("nan"), "made": ["here", {"x": 1.5}]})
    assert policy.integers is not None
    export_json(policy, tmp_path / "p.json")
    read = json.loads((tmp_path / "p.json").read_text(), parse_constant=refuse_constant)
    assert (read["schema"], read["sizes"], read["time_steps"]) == ("spikerl.firmware/1", [40, 24, 20, 10], 5)
    assert read["provenance"] == {"eval_return": None, "made": ["here", {"x": 1.5}]}
    content = struct.pack("<i", 5)
    for layer, stored in zip(policy.integers, read["layers"], strict=True):
        np.testing.assert_array_equal(stored["weight"], layer.weight)
        np.testing.assert_array_equal(2 * np.array(stored["weight_int8"]), layer.weight)
        np.testing.assert_array_equal(stored["bias"], layer.bias)
        assert all(stored[name] == getattr(layer, name) for name in ("weight_exp", "du", "dv", "vth", "scale"))
        flat = [code for row in stored["weight_int8"] for code in row]
        content += struct.pack(f"<{len(flat)}b{len(stored['bias'])}i", *flat, *stored["bias"])
        content += struct.pack("<4i", *(stored[name] for name in ("weight_exp", "du", "dv", "vth")))
    assert read["integers_sha256"] == hashlib.sha256(content).hexdigest()
    assert policy.decoder is not None
    np.testing.assert_array_equal(read["decoder"]["weight"], policy.decoder.weight)
    assert read["encoder"]["coding"] == "regular"


def test_a_core_alone_has_no_codec_in_json(tmp_path: Path) -> None:
    policy = quantize(Policy(layers=random_layers(np.random.default_rng(0), (6, 5, 4))), 8)[0]
    export_json(policy, tmp_path / "p.json")
    read = json.loads((tmp_path / "p.json").read_text())
    assert read["encoder"] is read["decoder"] is read["normalization"] is None


@pytest.mark.parametrize("export", [export_json, export_c_header])
def test_a_float_policy_is_refused_with_a_way_out(tmp_path: Path, export: object) -> None:
    with pytest.raises(SpikerlError, match="the policy is a float one") as refused:
        export(random_policy(), tmp_path / "p")
    assert "--bits 8" in str(refused.value.hint)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("export", [export_json, export_c_header])
def test_a_file_is_not_overwritten_unasked(tmp_path: Path, export: object) -> None:
    (tmp_path / "p").write_text("mine")
    with pytest.raises(SpikerlError, match="exists and is not overwritten"):
        export(quantized_policy(), tmp_path / "p")
    assert (tmp_path / "p").read_text() == "mine"
    export(quantized_policy(), tmp_path / "p", True)
    assert (tmp_path / "p").read_text() != "mine"


@pytest.mark.parametrize("prefix", ["", "2wheels", "my-robot", "a b", "_x", "größe", "x\n", "x;int y"])
def test_a_prefix_that_is_no_identifier_is_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(SpikerlError, match="is no C identifier"):
        export_c_header(quantized_policy(), tmp_path / "p.h", prefix=prefix)


def test_numbers_that_a_format_cannot_hold_are_named(tmp_path: Path) -> None:
    policy = quantized_policy()
    with pytest.raises(SpikerlError, match="strict JSON"):
        export_json(replace(policy, provenance={"file": Path("x")}), tmp_path / "p.json")


def test_a_large_policy_is_written_within_two_seconds(tmp_path: Path) -> None:
    policy = quantized_policy(obs_dim=17, act_dim=6, hidden=(256, 256))
    assert policy.sizes == (170, 256, 256, 60)
    started = time.perf_counter()
    export_c_header(policy, tmp_path / "p.h")
    export_json(policy, tmp_path / "p.json")
    assert time.perf_counter() - started < 2

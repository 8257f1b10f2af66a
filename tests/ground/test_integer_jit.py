"""The compiled integer layer against the reference that follows every width, and what is left to NumPy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT, quantized_policy, random_spikes

from simulators import fixed
from simulators.fixed import FixedBackend
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.integer_jit import CompiledLayer, can_compile
from spikerl_deploy.integer_lif import integrate_reference
from spikerl_deploy.loihi import STATE_LIMIT, IntegerLayer, largest_sum, state_bound

SHORT = st.builds(lambda p, k: min(p, 2**k) << (12 - k), st.integers(0, 255), st.integers(0, 12))  # kept, of 4096


def reference(layer: IntegerLayer, spikes: np.ndarray) -> np.ndarray:
    """Spikes [B, T, n] for input spikes [B, T, n_in]."""
    sums = spikes.swapaxes(0, 1).astype(np.int64) @ layer.weight.T.astype(np.int64) + layer.bias
    return integrate_reference(sums, layer).swapaxes(0, 1)


@settings(max_examples=150, deadline=None)
@given(
    kept=st.tuples(SHORT, SHORT),
    weight_exp=st.integers(0, 7),
    vth=st.integers(1, (1 << 17) - 1),
    n_in=st.sampled_from([1, 3, 40, 300]),
    seed=st.integers(0, 2**32 - 1),
    time_steps=st.integers(1, 9),
)
def test_a_compiled_layer_is_the_reference(
    kept: tuple[int, int], weight_exp: int, vth: int, n_in: int, seed: int, time_steps: int
) -> None:
    rng = np.random.default_rng(seed)
    weight, bias = 2 * rng.integers(-128, 128, (17, n_in)), 2 * rng.integers(-2000, 2000, 17)
    du, dv = max(4095 - kept[0], 0), min(4096 - kept[1], 4095)
    layer = IntegerLayer(weight, bias, weight_exp, du, dv, vth, 1.0)
    spikes = rng.random((3, time_steps, n_in)) < rng.random()
    if can_compile(layer, time_steps):
        np.testing.assert_array_equal(CompiledLayer(layer)(spikes), reference(layer, spikes))
    core = IntegerCore([layer], time_steps)
    core.compile()
    np.testing.assert_array_equal(core(spikes.swapaxes(0, 1))[0].swapaxes(0, 1), reference(layer, spikes))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("du", [0, 4096 - 255 * 16 - 1, 2047, 4095])  # keep 4095/4096 (long), 255/256, 1/2, nothing
def test_states_at_their_limit_stay_exact(sign: int, du: int) -> None:
    """One large drive and then silence: the states decay from just below 2^23, threshold out of reach below."""
    weight = np.full((1, 511), 256 * sign - 2 * (sign > 0))
    layer = IntegerLayer(weight, np.zeros(1), 0, du, 16, (1 << 17) - 1, 1.0)
    spikes = np.zeros((1, 40, 511), bool)
    spikes[0, 0] = True
    core = IntegerCore([layer], 40)
    assert core.compile() == can_compile(layer, 40)
    np.testing.assert_array_equal(core(spikes.swapaxes(0, 1))[0].swapaxes(0, 1), reference(layer, spikes))


def test_sums_beyond_16_bits_are_exact() -> None:
    layers = [IntegerLayer(np.full((1, n), 254), np.zeros(1), 0, 4095, 4095, n * 254 - 1, 1.0) for n in (129, 130, 500)]
    assert [largest_sum(layer) < 1 << 15 for layer in layers] == [True, False, False]
    for layer in layers:
        assert can_compile(layer, 1)
        everything = np.ones((1, 1, layer.weight.shape[1]), bool)
        assert CompiledLayer(layer)(everything).all()  # one unit above the threshold
        everything[0, 0, 0] = False
        assert not CompiledLayer(layer)(everything).any()


def test_a_clipped_voltage_comes_up_from_the_limit() -> None:
    weight = np.array([[-250] * 320 + [254] * 516 + [6]])
    layer = IntegerLayer(weight, np.zeros(1), 0, 4095, 16, 1, 1.0)
    assert can_compile(layer, 3)
    assert state_bound(layer, 3)[1] > STATE_LIMIT
    spikes = np.zeros((1, 3, 837), bool)
    spikes[0, :2, :320] = spikes[0, 2, 320:] = True
    assert CompiledLayer(layer)(spikes).ravel().tolist() == reference(layer, spikes).ravel().tolist()
    # Where 3/4 of a voltage is kept, it spikes from the limit (2.1 million), and would not from beyond it (1.7).
    layer = IntegerLayer(weight, np.zeros(1), 0, 4095, 1024, 29_687, 1.0)
    assert can_compile(layer, 3)
    assert CompiledLayer(layer)(spikes).ravel().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("layer", "time_steps"),
    [
        (IntegerLayer(np.ones((1, 1)) * 2, np.zeros(1), -1, 2047, 1024, 5, 1.0), 5),  # shifts right
        (IntegerLayer(np.ones((1, 1)) * 2, np.zeros(1), 0, 2046, 1024, 5, 1.0), 5),  # keeps 2049/4096
        (IntegerLayer(np.full((1, 250), -256), np.zeros(1), 1, 2047, 1024, 5, 1.0), 3),  # may wrap
    ],
)
def test_what_32_bits_cannot_hold_is_left_to_numpy(layer: IntegerLayer, time_steps: int) -> None:
    assert not can_compile(layer, time_steps)
    assert not IntegerCore([layer], time_steps).compile()


def test_bytes_that_are_no_booleans_write_nothing_out_of_bounds() -> None:
    """Memory that is called boolean may hold any byte."""
    layer = IntegerLayer(np.full((4, 8), 2), np.zeros(4), 0, 2047, 1024, 5, 1.0)
    wild = np.full((1, 2, 8), 255, np.uint8).view(bool)
    np.testing.assert_array_equal(CompiledLayer(layer)(wild), reference(layer, np.ones((1, 2, 8), bool)))


def test_a_session_compiles_after_many_control_steps_and_spikes_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed, "COMPILE_AFTER", 10)
    policy, inputs = quantized_policy(), random_spikes(0, (4, 4, 5, 40))
    with FixedBackend().open(policy, 4) as session:
        ours = [session.infer(block, rasters=True) for block in inputs]
        assert all(layer.compiled is not None for layer in session.core.layers)
    with FixedBackend().open(policy, 4) as session:
        monkeypatch.setattr(fixed, "COMPILE_AFTER", 1000)
        for block, record in zip(inputs, ours, strict=True):
            other = session.infer(block, rasters=True)
            assert other.rasters is not None
            assert record.rasters is not None
            for a, b in zip(record.rasters, other.rasters, strict=True):
                np.testing.assert_array_equal(a, b)
            for a, b in zip(record.counts, other.counts, strict=True):
                np.testing.assert_array_equal(a, b)
        assert all(layer.compiled is None for layer in session.core.layers)


def test_without_numba_numpy_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spikerl_deploy.integer_jit", None)
    policy = quantized_policy()
    assert policy.integers is not None
    assert not IntegerCore(policy.integers, policy.time_steps).compile()


def test_without_a_folder_for_its_cache_numba_compiles_all_the_same(tmp_path: Path) -> None:
    """As in a container: the packages cannot be written, and there is no home."""
    shutil.copytree(ROOT / "spikerl_deploy", tmp_path / "spikerl_deploy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("training", "exporters", "simulators"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "spikerl_deploy" / "__pycache__").touch()
    code = """
import numpy as np
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.loihi import IntegerLayer
core = IntegerCore([IntegerLayer(np.full((4, 8), 2), np.zeros(4), 0, 2047, 1024, 5, 1.0)], 2)
assert core.compile()
assert core(np.ones((2, 1, 8), bool))[0].all()
"""
    environment = os.environ | {"HOME": "/dev/null", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tmp_path)}
    environment.pop("XDG_CACHE_HOME", None)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_long_rasters_are_counted_beyond_a_byte() -> None:
    policy = quantized_policy(time_steps=300)
    with FixedBackend().open(policy) as session:
        record = session.infer(np.ones((1, 300, 40), bool), rasters=True)
    assert record.rasters is not None
    for counts, raster in zip(record.counts, record.rasters, strict=True):
        np.testing.assert_array_equal(counts, raster.astype(int).sum(axis=1))
    assert max(int(counts.max()) for counts in record.counts) > 255

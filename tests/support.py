"""Policies and reference computations for the tests; nothing here is imported by the package."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporters.quantize import quantize
from spikerl_deploy.policy import (
    Normalization,
    Policy,
    PopulationDecoder,
    PopulationEncoder,
    SpikingLayer,
)

ROOT = Path(__file__).resolve().parent.parent
ASSETS = Path(__file__).resolve().parent / "assets"


def random_layers(
    rng: np.random.Generator, sizes: tuple[int, ...], gain: float = 1.0, **neuron: float
) -> tuple[SpikingLayer, ...]:
    """Layers with weights wide enough that neurons in every layer spike, and are silent, often."""
    layers = []
    for n_in, n_out in itertools.pairwise(sizes):
        weight = rng.normal(-0.1 / n_in, 0.9 * gain / np.sqrt(n_in), (n_out, n_in))
        layers.append(SpikingLayer(weight, rng.normal(0, 0.05, n_out), **neuron))
    return tuple(layers)


def random_policy(
    seed: int = 0,
    obs_dim: int = 4,
    act_dim: int = 1,
    population: int = 10,
    hidden: tuple[int, ...] = (24, 20),
    time_steps: int = 5,
    env_id: str | None = "InvertedPendulum-v5",
    coding: str = "regular",
    action_bound: float = 3.0,
) -> Policy:
    """An untrained float policy with every part; by default it fits InvertedPendulum-v5."""
    rng = np.random.default_rng(seed)
    centres = np.tile(np.linspace(-3, 3, population), (obs_dim, 1))
    return Policy(
        layers=random_layers(rng, (obs_dim * population, *hidden, act_dim * population)),
        time_steps=time_steps,
        normalization=Normalization(rng.normal(0, 0.1, obs_dim), rng.uniform(0.5, 2, obs_dim)),
        encoder=PopulationEncoder(
            centres + rng.normal(0, 0.1, centres.shape), rng.uniform(0.3, 0.6, centres.shape), coding
        ),
        decoder=PopulationDecoder(
            rng.normal(0, 0.5, (act_dim, population)),
            rng.normal(0, 0.1, act_dim),
            np.full(act_dim, -action_bound),
            np.full(act_dim, action_bound),
        ),
        env_id=env_id,
        provenance={"made": "for a test"},
    )


def overflowing_policy(**options: object) -> Policy:
    """A float policy whose output always spikes, which its decoder makes inf - inf of: NumPy adds up in pairs."""
    policy = random_policy(**options)
    always = replace(policy.layers[-1], bias=np.full(policy.n_out, 10.0))
    signs = np.where(np.arange(policy.n_out) < policy.n_out // 2 - 1, 3e38, -3e38)[None]
    decoder = replace(policy.decoder, weight=signs)
    return replace(policy, layers=(*policy.layers[:-1], always), decoder=decoder)


def quantized_policy(bits: int = 8, **options: object) -> Policy:
    """The random policy in integers."""
    return quantize(random_policy(**options), bits)[0]


def random_spikes(seed: int, shape: tuple[int, ...], rate: float = 0.3) -> np.ndarray:
    """Boolean spikes of a given rate."""
    return np.random.default_rng(seed).random(shape) < rate


def naive_core(layers: tuple[SpikingLayer, ...], spikes: np.ndarray) -> list[np.ndarray]:
    """Rasters [T, n] of every layer for input spikes [T, n_in], straight from the equations, in float64."""
    rasters, current = [], spikes
    for layer in layers:
        u, v, s = np.zeros(layer.n_out), np.zeros(layer.n_out), np.zeros(layer.n_out, dtype=bool)
        out = []
        for t in range(len(current)):
            drive = layer.weight.astype(float) @ current[t] + layer.bias
            u = u * layer.current_decay + drive
            v = np.where(s, 0.0, v) * layer.voltage_decay + u
            s = v > layer.v_threshold
            out.append(s)
        current = np.array(out)
        rasters.append(current)
    return rasters


def fail_import(monkeypatch: pytest.MonkeyPatch, module: str, error: ImportError) -> None:
    """Let the next import of a module raise an error, whether it is loaded or not."""

    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == module:
                raise error

    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])


def run_cli(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed `spikerl` in a process of its own."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "spikerl"), *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"} | environment,
        check=False,
    )


def run_here(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line within this process: what an error looks like does not need a process of its own each time."""
    from spikerl_deploy.cli import main

    out, err = io.StringIO(), io.StringIO()
    given, folder, code = sys.argv, Path.cwd(), 0
    sys.argv = ["spikerl", *arguments]
    try:
        os.chdir(cwd or folder)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        sys.argv = given
        os.chdir(folder)
    return subprocess.CompletedProcess(["spikerl", *arguments], code, out.getvalue(), err.getvalue())

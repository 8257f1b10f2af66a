"""`spikerl run` as a user runs it: graphs and policy files in, npz out, summaries and one-line errors."""

from __future__ import annotations

import itertools
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from support import naive_core, quantized_policy, random_policy, random_spikes, run_cli, run_here

from simulators.fixed import FixedBackend
from spikerl_deploy.policy_file import save_policy

DT = 1e-4


def vector(size: int, value: float) -> np.ndarray:
    return np.full(size, value)


def lif(size: int) -> nir.LIF:
    """v = v / 2 + i, spike above 1."""
    one = vector(size, 1.0)
    return nir.LIF(tau=2 * DT * one, r=2 * one, v_leak=0 * one, v_threshold=one, v_reset=0 * one)


def write(path: Path, nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]]) -> None:
    nir.write(path, nir.NIRGraph(nodes, edges))


def write_recurrent(path: Path) -> None:
    """One neuron whose spikes drive it again: v = v / 2 + 1.5 x + 1.25 z(t - 1)."""
    nodes = {
        "in": nir.Input(np.array([1])),
        "fc": nir.Linear(np.array([[1.5]])),
        "lif": lif(1),
        "rec": nir.Linear(np.array([[1.25]])),
        "out": nir.Output(np.array([1])),
    }
    write(path, nodes, [("in", "fc"), ("fc", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "out")])


def write_chain(path: Path, **nodes: nir.NIRNode) -> None:
    names = list(nodes)
    write(path, nodes, list(itertools.pairwise(names)))


@pytest.fixture
def recurrent(tmp_path: Path) -> Path:
    write_recurrent(tmp_path / "g.nir")
    np.savez(tmp_path / "s.npz", spikes=np.array([[0], [1], [0], [0]]))
    return tmp_path


def assert_error(done: subprocess.CompletedProcess[str], *parts: str, hint: str = "") -> None:
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines), done.stdout) == (2, 2, ""), done
    assert lines[0].startswith("Error: ") and lines[1].startswith("Hint: ")
    assert all(part in lines[0] for part in parts), lines[0]
    assert hint in lines[1], lines[1]


def run_graph(
    folder: Path, *options: str, graph: str = "g.nir", dt: str = "1e-4", process: bool = False
) -> dict[str, Any]:
    """Arrays that the command line writes; `process` runs it as one of its own, which takes seconds."""
    arguments = [graph, "--input", "s.npz", "-o", "out.npz", "--force", *options]
    done = (run_cli if process else run_here)("run", *arguments, *(("--dt", dt) if dt else ()), cwd=folder)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz", allow_pickle=False) as file:
        return dict(file)


def test_a_recurrent_graph_runs_and_is_recorded(recurrent: Path) -> None:
    arrays = run_graph(recurrent, "--record", "lif", process=True)
    assert set(arrays) == {"output", "lif.spikes", "lif.v"}
    # 1.5 spikes and resets; 1.25 by its own spike of the step before, and again.
    np.testing.assert_array_equal(arrays["output"], [[False], [True], [True], [True]])
    np.testing.assert_array_equal(arrays["lif.spikes"], arrays["output"])
    np.testing.assert_array_equal(arrays["lif.v"], np.zeros((4, 1), dtype=np.float32))
    assert arrays["output"].dtype == bool and arrays["lif.v"].dtype == np.float32


def test_a_convolution_runs_on_images(tmp_path: Path) -> None:
    weight = np.arange(8.0).reshape(2, 1, 2, 2)
    write_chain(
        tmp_path / "g.nir",
        **{"in": nir.Input(np.array([1, 3, 3]))},
        conv=nir.Conv2d((3, 3), weight, 1, 0, 1, 1, np.array([0.5, -0.5])),
        li=nir.I(np.full((2, 2, 2), 1 / DT)),
        out=nir.Output(np.array([2, 2, 2])),
    )
    images = np.random.default_rng(0).integers(-2, 3, (3, 1, 3, 3))
    np.savez(tmp_path / "s.npz", spikes=images)
    expected = np.zeros((3, 2, 2, 2))
    for c in range(2):
        for y in range(2):
            for x in range(2):
                window = images[:, 0, y : y + 2, x : x + 2]
                expected[:, c, y, x] = np.cumsum((window * weight[c, 0]).sum((1, 2)) + (0.5 - c))
    np.testing.assert_allclose(run_graph(tmp_path)["output"], expected, rtol=1e-6)


def test_a_node_within_a_subgraph_is_recorded_by_its_path(tmp_path: Path) -> None:
    inner = nir.NIRGraph(
        {"i": nir.Input(np.array([2])), "lif": lif(2), "o": nir.Output(np.array([2]))}, [("i", "lif"), ("lif", "o")]
    )
    write_chain(
        tmp_path / "g.nir",
        **{"in": nir.Input(np.array([2]))},
        fc=nir.Linear(np.array([[2.0, 0.0], [0.0, 0.5]])),
        block=inner,
        out=nir.Output(np.array([2])),
    )
    np.savez_compressed(tmp_path / "s.npz", spikes=np.ones((2, 2), dtype=bool))
    arrays = run_graph(tmp_path, "--record", "block.lif")
    np.testing.assert_array_equal(arrays["block.lif.spikes"], [[True, False], [True, False]])
    np.testing.assert_array_equal(arrays["block.lif.v"], [[0, 0.5], [0, 0.75]])


def test_a_policy_file_runs_its_integers_where_the_backend_has_integers(tmp_path: Path) -> None:
    policy = quantized_policy(hidden=(24, 20))
    save_policy(policy, tmp_path / "p.nir")
    spikes = random_spikes(3, (policy.time_steps, policy.n_in))
    np.savez(tmp_path / "s.npz", spikes=spikes)
    with FixedBackend().open(policy) as session:
        rasters = session.infer(spikes[None], rasters=True).rasters
    arrays = run_graph(tmp_path, "--backend", "fixed", "--record", "lif1", graph="p.nir", dt="", process=True)
    np.testing.assert_array_equal(arrays["output"], rasters[-1][0])
    np.testing.assert_array_equal(arrays["lif1.spikes"], rasters[0][0])
    floats = run_graph(tmp_path, "--backend", "torch", "--record", "lif1", graph="p.nir", dt="1e-4")
    naive = naive_core(policy.layers, spikes)
    np.testing.assert_array_equal(floats["output"], naive[-1])
    np.testing.assert_array_equal(floats["lif1.spikes"], naive[0])


def test_the_summary_is_the_same_for_humans_and_machines(recurrent: Path) -> None:
    arguments = ("run", "g.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz", "--record", "lif", "--force")
    document = json.loads(run_here(*arguments, "--format", "json", cwd=recurrent).stdout)
    assert document == {
        "schema": "spikerl.run/1",
        "graph": "g.nir",
        "input": "s.npz",
        "file": "out.npz",
        "backend": "torch",
        "exactness": "float",
        "dt_s": 1e-4,
        "time_steps": 4,
        "input_shape": [1],
        "output_shape": [1],
        "output_spikes": 3,
        "recorded": {"lif": {"spikes": 3, "v_min": 0.0, "v_max": 0.0}},
        "rounding": None,
        "operations": None,
    }
    shown = run_here(*arguments, cwd=recurrent)
    assert shown.stdout.splitlines() == [
        "ran g.nir on torch: 4 time steps of 0.0001 s, input [1], output [1]",
        "output: 3 spikes",
        "lif: 3 spikes, v from 0 to 0",
    ]
    assert shown.stderr == "result: out.npz\n"


def test_operations_are_counted_and_shown(recurrent: Path) -> None:
    """It spikes in the time steps 1, 2 and 3; the last spike would come back in a fifth."""
    arguments = ("run", "g.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz", "--count", "--force")
    for backend in ("torch", "fixed"):
        done = run_here(*arguments, "--backend", backend, "--format", "json", cwd=recurrent)
        operations = json.loads(done.stdout)["operations"]
        assert operations["unit"] == "whole run: all time steps together"
        assert operations["connections"] == [
            {
                "source": source, "target": "lif", "delay": delay, "n_in": 1, "n_out": 1, "synapses": 1, "weights": 1,
                "input_events": events, "effective_acs": events, "effective_macs": 0, "dense": 4,
            }
            for source, delay, events in (("in", 0, 1), ("lif", 1, 2))
        ]  # fmt: skip
        assert operations["populations"] == [
            {
                "name": "lif", "neurons": 1, "spikes": 3, "updates_active": 3, "updates_inactive": 1,
                "activation_sparsity": 0.25,
            }
        ]  # fmt: skip
        assert operations["total"] == {
            "synaptic_operations": 3, "synapses": 2, "weights": 2, "effective_acs": 3, "effective_macs": 0, "dense": 8,
            "spikes": 3, "updates_active": 3, "updates_inactive": 1,
        }  # fmt: skip
    shown = run_here(*arguments, cwd=recurrent).stdout.splitlines()
    assert [line.split() for line in shown[2:]] == [
        ["connection", "synapses", "events", "in", "ACs", "MACs", "dense"],
        ["in", "->", "lif", "1", "1", "1", "0", "4"],
        ["lif", "->", "lif,", "1", "late", "1", "2", "2", "0", "4"],
        ["total", "2", "3", "0", "8"],
        "3 synaptic operations, 3 spikes, 4 neuron updates in 4 time steps".split(),
    ]


def test_what_is_recorded_for_the_count_alone_is_not_written(recurrent: Path) -> None:
    counted = run_graph(recurrent, "--count")
    assert set(counted) == {"output"}
    assert set(run_graph(recurrent, "--count", "--record", "lif")) == {"output", "lif.spikes", "lif.v"}


def test_numbers_other_than_spikes_count_as_multiplications(recurrent: Path) -> None:
    np.savez(recurrent / "s.npz", spikes=np.array([[0.5], [1.0], [0.0], [-2.0]]))
    arguments = ("run", "g.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz", "--count", "--format", "json")
    first = json.loads(run_here(*arguments, cwd=recurrent).stdout)["operations"]["connections"][0]
    assert (first["effective_acs"], first["effective_macs"]) == (1, 2)


def test_a_policy_counts_the_synapses_of_its_integers(tmp_path: Path) -> None:
    """Three bits leave zeros, which the floats of this file do not share."""
    policy = quantized_policy(bits=3)
    policy = replace(policy, layers=[replace(layer, weight=np.ones_like(layer.weight)) for layer in policy.layers])
    save_policy(policy, tmp_path / "p.nir")
    spikes = random_spikes(0, (policy.time_steps, policy.n_in))
    np.savez(tmp_path / "s.npz", spikes=spikes)
    with FixedBackend().open(policy) as session:
        rasters = session.infer(spikes[None], rasters=True).rasters
    expected = [
        int(sum(np.count_nonzero(layer.weight[:, source]) for _, source in np.argwhere(raster)))
        for layer, raster in zip(policy.integers, (spikes, rasters[0][0], rasters[1][0]), strict=True)
    ]
    done = run_here(
        *("run", "p.nir", "--input", "s.npz", "-o", "out.npz", "--backend", "fixed", "--count", "--format", "json"),
        cwd=tmp_path,
    )
    operations = json.loads(done.stdout)["operations"]
    assert [row["effective_acs"] for row in operations["connections"]] == expected
    assert operations["total"]["dense"] == sum(layer.weight.size for layer in policy.integers) * policy.time_steps
    assert operations["total"]["synapses"] < operations["total"]["weights"]


def test_integer_backends_count_the_synapses_that_rounding_leaves(tmp_path: Path) -> None:
    """Of 127, 1 and 0.2 in 8 bits, the last is none."""
    write_chain(
        tmp_path / "g.nir",
        **{"in": nir.Input(np.array([3]))},
        fc=nir.Linear(np.array([[1.27, 0.01, 0.002]])),
        lif=lif(1),
        out=nir.Output(np.array([1])),
    )
    np.savez(tmp_path / "s.npz", spikes=np.ones((2, 3)))
    arguments = ("run", "g.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz", "--force", "--count")
    found = []
    for options in (("--backend", "fixed", "--round"), ("--backend", "torch")):
        done = run_here(*arguments, *options, "--format", "json", cwd=tmp_path)
        total = json.loads(done.stdout)["operations"]["total"]
        found.append((total["synapses"], total["effective_acs"], total["dense"]))
    assert found == [(2, 4, 6), (3, 6, 6)]


def test_a_graph_that_cannot_be_counted_is_refused_before_it_runs(recurrent: Path) -> None:
    one = vector(1, 1.0)
    li = nir.LI(tau=2 * DT * one, r=2 * one, v_leak=0 * one)
    write_chain(
        recurrent / "li.nir", **{"in": nir.Input(np.array([1])), "li": li, "lif": lif(1)}, out=nir.Output(np.array([1]))
    )
    arguments = ("run", "li.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz")
    for dry in ((), ("--dry-run",)):
        assert_error(run_here(*arguments, "--count", *dry, cwd=recurrent), "'li'", hint="leave --count out")
    assert not (recurrent / "out.npz").exists()
    assert run_here(*arguments, cwd=recurrent).returncode == 0


def test_a_count_of_integers_that_there_are_not_asks_for_rounding(recurrent: Path) -> None:
    node = nir.LIF(*(vector(1, v) for v in (3.7 * DT, 3.7, 0.0, 1.0)))
    write_chain(recurrent / "n.nir", **{"in": nir.Input(np.array([1])), "n": node}, out=nir.Output(np.array([1])))
    arguments = ("run", "n.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz", "--backend", "fixed", "--count")
    assert_error(run_here(*arguments, cwd=recurrent), "'n'", hint="--round")
    assert run_here(*arguments, "--round", cwd=recurrent).returncode == 0


def test_a_dry_run_checks_and_writes_nothing(recurrent: Path) -> None:
    arguments = ("run", "g.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz", "--dry-run", "--record")
    done = run_here(*arguments, "lif", cwd=recurrent)
    assert done.stdout.splitlines() == [
        "would run g.nir on torch: 4 time steps of 0.0001 s, input [1], output [1]",
        "lif: to be recorded",
    ]
    assert not (recurrent / "out.npz").exists()
    assert_error(run_here(*arguments, "fc", cwd=recurrent), "'fc' is a Linear", hint="one of: lif")
    (recurrent / "out.npz").touch()
    assert_error(run_here(*arguments, "lif", cwd=recurrent), "'out.npz' exists", hint="--force")


@pytest.mark.parametrize(
    ("backend", "node", "message", "hint"),
    [
        ("fixed", nir.LIF(*(np.array([v]) for v in (3.7 * DT, 3.7, 0.0, 1.0))), "'n'", "--round"),
        ("lava", nir.LIF(*(np.array([v]) for v in (3.7 * DT, 3.7, 0.0, 1.0))), "'n'", "--round"),
        ("lava-float", nir.Linear(np.eye(1)), "is fed by", "--backend torch"),
        ("lava-stock", lif(1), "backend 'lava-stock' runs policies, not graphs", "spikerl backends list"),
        ("torch", nir.IF(np.array([1.0]), np.array([1e39])), "'n'", "--backend lava-float"),
        ("snntorch", nir.LIF(*(np.array([v]) for v in (2 * DT, 2.0, 0.5, 1.0))), "cannot honour NIR node 'n'", "torch"),
    ],
)
def test_a_dry_run_asks_the_backend_whether_it_runs_the_graph(
    recurrent: Path, backend: str, node: nir.NIRNode, message: str, hint: str, request: pytest.FixtureRequest
) -> None:
    if backend.startswith("lava"):
        request.getfixturevalue("lava_folder")
    write_chain(recurrent / "n.nir", **{"in": nir.Input(np.array([1])), "n": node}, out=nir.Output(np.array([1])))
    arguments = ("run", "n.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz", "--backend", backend)
    for dry in ((), ("--dry-run",)):
        assert_error(run_here(*arguments, *dry, cwd=recurrent), message, hint=hint)


def test_a_dry_run_takes_the_integers_of_a_policy_file(tmp_path: Path) -> None:
    """Some of its floats have no exact integers of their own."""
    policy = quantized_policy()
    save_policy(policy, tmp_path / "p.nir")
    np.savez(tmp_path / "s.npz", spikes=random_spikes(0, (5, policy.n_in)))
    arguments = ("run", "p.nir", "--input", "s.npz", "-o", "out.npz", "--backend", "fixed", "--dry-run")
    assert run_here(*arguments, cwd=tmp_path).stdout.startswith("would run p.nir on fixed")


def test_rounding_is_refused_unless_asked_for_and_then_reported(recurrent: Path) -> None:
    one = vector(1, 1.0)
    node = nir.LIF(tau=3.7 * DT * one, r=3.7 * one, v_leak=0 * one, v_threshold=one, v_reset=0 * one)
    write_chain(
        recurrent / "odd.nir",
        **{"in": nir.Input(np.array([1])), "fc": nir.Linear(np.array([[1.25]])), "odd": node},
        out=nir.Output(np.array([1])),
    )
    arguments = ("run", "odd.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz", "--backend", "fixed")
    assert_error(run_here(*arguments, cwd=recurrent), "'odd'", hint="--round")
    document = json.loads(run_here(*arguments, "--round", "--format", "json", cwd=recurrent).stdout)
    assert 0 < document["rounding"]["odd"] < 0.01
    assert "odd: rounded by at most 0.0" in run_here(*arguments, "--round", "--force", cwd=recurrent).stdout


def test_what_a_backend_does_not_run_is_one_line_with_the_node(recurrent: Path) -> None:
    one = vector(1, 1.0)
    li = nir.LI(tau=2 * DT * one, r=2 * one, v_leak=0 * one)
    write_chain(
        recurrent / "li.nir", **{"in": nir.Input(np.array([1])), "li": li, "lif": lif(1)}, out=nir.Output(np.array([1]))
    )
    arguments = ("run", "li.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz", "--backend", "fixed")
    assert_error(run_here(*arguments, cwd=recurrent), "'li'", hint="--backend torch")
    assert not (recurrent / "out.npz").exists()


def test_values_that_overflow_are_said(recurrent: Path) -> None:
    node = nir.I(r=vector(1, 1 / DT))
    write_chain(recurrent / "i.nir", **{"in": nir.Input(np.array([1])), "i": node}, out=nir.Output(np.array([1])))
    np.savez(recurrent / "s.npz", spikes=np.full((3, 1), 3e38))
    done = run_here(
        *("run", "i.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz", "--record", "i", "--format", "json"),
        cwd=recurrent,
    )
    assert json.loads(done.stdout)["recorded"]["i"] == {"spikes": None, "v_min": pytest.approx(3e38), "v_max": None}
    assert [line.split(":")[0] for line in done.stderr.splitlines() if "overflowed" in line] == ["i", "output"]


def write_pickle(path: Path) -> None:
    np.savez(path, spikes=np.array([{}], dtype=object))


def write_bomb(path: Path) -> None:
    """More than 2 GiB in a few MiB would take long to write: an entry that only says so."""
    np.savez_compressed(path, spikes=np.zeros((4, 1), dtype=bool))
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + 24 : central + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("write_input", "parts"),
    [
        (lambda p: np.savez(p, x=np.zeros(3), y=np.zeros(2)), ("holds x, y, and no 'spikes'",)),
        (lambda p: np.savez(p, spikes=np.zeros((4, 2))), ("(4, 2)", "[T, 1]", "'in'")),
        (lambda p: np.savez(p, spikes=np.zeros(4)), ("(4,)", "[T, 1]")),
        (lambda p: np.savez(p, spikes=np.zeros((0, 1))), ("(0, 1) hold no time step",)),
        (lambda p: np.savez(p, spikes=np.float64(1)), ("() hold no time step",)),
        (lambda p: np.savez(p, spikes=np.array([[0.0], [np.nan]])), ("nan at [1, 0]", "not finite")),
        (lambda p: np.savez(p, spikes=np.array([[1e39], [0]])), ("1e+39 at [0, 0]", "not finite in float32")),
        (lambda p: np.savez(p, spikes=np.array([[1j]])), ("complex128",)),
        (lambda p: np.savez(p, spikes=np.array([["a"]])), ("<U1",)),
        (write_pickle, ("cannot read", "allow_pickle=False")),
        (write_bomb, ("4294967280", "at most")),
        (lambda p: p.write_bytes(b"PK\x03\x04 no zip"), ("cannot read input 's.npz'",)),
        (lambda p: p.write_bytes(b""), ("cannot read input 's.npz'",)),
        (lambda p: np.save(p.open("wb"), np.zeros((4, 1))), ("cannot read input 's.npz'",)),
        (lambda p: p.unlink(), ("no input file at 's.npz'",)),
    ],
)
def test_a_wrong_input_is_one_line(recurrent: Path, write_input: Any, parts: tuple[str, ...]) -> None:
    write_input(recurrent / "s.npz")
    done = run_here("run", "g.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz", cwd=recurrent)
    assert_error(done, *parts, hint="'spikes' [T, ...input shape]")
    assert not (recurrent / "out.npz").exists()


@pytest.mark.parametrize(
    ("options", "parts", "hint"),
    [
        ([], ("does not say its time step",), "--dt 1e-4"),
        (["--dt", "0"], ("--dt 0 is not a positive time step",), "--dt 1e-4"),
        (["--dt", "nan"], ("--dt nan",), "--dt 1e-4"),
        (["--dt", "1e-3"], ("'lif'", "tau"), "--dt"),
        (["--dt", "1e-4", "--record", "lief"], ("unknown node to record 'lief'; there is: lif",), "did you mean 'lif'"),
        (["--dt", "1e-4", "--record", "rec"], ("'rec' is a Linear",), "one of: lif"),
        (["--dt", "1e-4", "--backend", "torhc"], ("unknown backend 'torhc'",), "did you mean 'torch'"),
        (["--dt", "1e-4", "--round"], ("--round concerns none of the backends torch",), "leave --round out"),
        (["--dt", "1e-4", "--device", "cuda"], ("'cuda' asked for",), "--device cpu"),
        (["--dt", "1e-4", "--device", "gpu"], ("unknown device 'gpu'",), ""),
        (["--dt", "1e-4", "--backend", "fixed", "--device", "cpu"], ("--device concerns none",), "leave --device"),
        (["--dt", "1e-4", "-o", "old.npz"], ("'old.npz' exists and is not overwritten",), "--force"),
        (["--dt", "1e-4", "-o", "./g.nir", "--force"], ("-o names 'g.nir', which is the graph",), "another name"),
        (["--dt", "1e-4", "-o", "s.npz", "--force"], ("-o names 's.npz', which is the input",), "another name"),
        (["--dt", "1e-4", "-o", "g.nir/a/out.npz"], ("cannot write 'g.nir/a/out.npz': Not a directory",), "writable"),
        (["--dt", "1e-4", "-o", 300 * "x"], ("File name too long",), "choose another name with -o"),
        (["--dt", "1e-4", "--backend", "lava", "--wheel", "none.whl"], ("no wheel at 'none.whl'",), "pip download"),
        (["--dt", "1e-4", "-o", "."], ("'.' is a directory",), "-o"),
    ],
)
def test_a_wrong_option_is_one_line(recurrent: Path, options: list[str], parts: tuple[str, ...], hint: str) -> None:
    (recurrent / "old.npz").touch()
    before = {path.name: path.read_bytes() for path in recurrent.iterdir()}
    done = run_here("run", "g.nir", "--input", "s.npz", "-o", "new/out.npz", *options, cwd=recurrent)
    assert_error(done, *parts, hint=hint)
    assert {path.name: path.read_bytes() for path in recurrent.iterdir()} == before


def test_a_backend_that_is_not_installed_says_how(recurrent: Path) -> None:
    done = run_cli(
        *("run", "g.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz", "--backend", "lava", "--no-install"),
        cwd=recurrent,
        SPIKERL_CACHE_DIR=str(recurrent / "cache"),
    )
    assert_error(done, "backend 'lava' cannot run here", "not installed", hint="spikerl backends install lava")


def test_integers_take_spikes_only(recurrent: Path) -> None:
    np.savez(recurrent / "s.npz", spikes=np.array([[0.0], [2.5]]))
    done = run_here(
        *("run", "g.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz", "--backend", "fixed"), cwd=recurrent
    )
    assert_error(done, "other than 0 and 1", hint="--backend torch")


def test_a_policy_file_keeps_its_time_step(tmp_path: Path) -> None:
    save_policy(random_policy(), tmp_path / "p.nir")
    np.savez(tmp_path / "s.npz", spikes=np.zeros((5, 40)))
    arguments = ("run", "p.nir", "--input", "s.npz", "-o", "out.npz", "--dt")
    assert_error(run_here(*arguments, "2e-4", cwd=tmp_path), "--dt 0.0002", "0.0001 s", hint="leave --dt out")
    assert run_here(*arguments, "0.0001", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("content", [b"", b"no hdf5"])
def test_a_file_that_is_no_graph_is_one_line(recurrent: Path, content: bytes) -> None:
    (recurrent / "bad.nir").write_bytes(content)
    arguments = ("--input", "s.npz", "--dt", "1e-4", "-o", "out.npz")
    assert_error(run_here("run", "bad.nir", *arguments, cwd=recurrent), "'bad.nir' is not a NIR file")
    assert_error(run_here("run", "none.nir", *arguments, cwd=recurrent), "no NIR file at 'none.nir'")


def test_an_interrupted_write_leaves_the_old_file(recurrent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (recurrent / "out.npz").write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    done = run_here("run", "g.nir", "--input", "s.npz", "--dt", "1e-4", "-o", "out.npz", "--force", cwd=recurrent)
    assert_error(done, "cannot write 'out.npz'", "No space left")
    assert (recurrent / "out.npz").read_bytes() == b"old"
    assert sorted(path.name for path in recurrent.iterdir()) == ["g.nir", "out.npz", "s.npz"]

"""Ranks: who they are, what they share, and that together they are one run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from training_support import (
    HOPPER,
    PROCESSES,
    Fault,
    assert_same_run,
    error_of,
    fingerprint,
    free_port,
    installed,
    metrics_of,
    observed,
    pointer_of,
    replay_of,
    sets,
    spikerl,
    start_ranks,
    state_of,
    succeeded,
    tiny,
    wait_for_step,
)

from spikerl_deploy.errors import RankLost, SpikerlError
from training.distributed import Group, Place, check_backend, find_place
from training.trainer import Trainer

CPU = torch.device("cpu")
# 4 steps a turn; 52 updates; evaluations of which rank 0 plays two episodes, rank 1 one
PAIR: dict[str, Any] = {
    "env": HOPPER, "steps": 160, "num_envs": 2, "start_steps": 40, "update_after": 60, "eval_every": 80,
    "eval_episodes": 3, "actor_lr": 1e-2,
}  # fmt: skip


def run_pair(folder: Path, launcher: str = "torchrun", fault: Fault | None = None, **settings: Any) -> Path:
    """The folder of a run of two ranks."""
    arguments = ["train", "--out", str(folder / "run"), *sets(**PAIR | settings)]
    done = [child.wait() for child in start_ranks(arguments, folder, launcher=launcher, fault=fault)]
    for one in done:
        succeeded(one)
    assert "best mean return" in done[0].stdout
    assert done[1].stdout == done[1].stderr == "", "only rank 0 speaks"
    return folder / "run"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_pair(tmp_path_factory.mktemp("pair"))


def differing(run: Path, *parts: str) -> list[str]:
    """What of the saved state is not the same to the bit on both ranks."""
    found = fingerprint(run)
    mine = {key.removeprefix("rank0/"): value for key, value in found.items() if key.startswith("rank0/")}
    assert any(part in key for key in mine for part in parts)
    return [k for k, v in mine.items() if any(part in k for part in parts) and found[f"rank1/{k}"] != v]


def test_parameters_of_the_ranks_are_the_same_to_the_bit_after_fifty_updates(pair: Path) -> None:
    assert state_of(pair)["state"]["agent"]["updates"] >= 50
    assert differing(pair, "agent/") == []
    before = Trainer(tiny(**PAIR), pair.parent / "fresh", quiet=True).agent.state_dict()
    for which in ("actor", "critic", "actor_target", "critic_target"):
        for name, value in state_of(pair)["state"]["agent"][which].items():
            assert not torch.equal(value, before[which][name]), f"{which}.{name} did not move"


@pytest.mark.parametrize(
    "kind", [{"actor": "mlp"}, {"target_actor": "proxy", "proxy_hidden": (9,), "readout": "membrane"}]
)
def test_any_kind_of_actor_and_its_proxy_stay_the_same_on_the_ranks(tmp_path: Path, kind: dict[str, Any]) -> None:
    run = run_pair(tmp_path, **kind)
    assert state_of(run)["state"]["agent"]["updates"] >= 50
    assert differing(run, "agent/") == []
    fresh = Trainer(tiny(**PAIR | kind), tmp_path / "fresh", quiet=True).agent.state_dict()
    for which in ("actor", "actor_target"):
        for name, value in state_of(run)["state"]["agent"][which].items():
            assert not torch.equal(value, fresh[which][name]), f"{which}.{name} did not move"


def test_without_the_average_of_gradients_the_ranks_drift_apart(pair: Path, tmp_path: Path) -> None:
    alone = run_pair(tmp_path, fault=Fault("alone"))
    apart = differing(alone, "agent/")
    for which in ("actor", "critic", "actor_target", "critic_target"):
        assert sum(key.startswith(f"agent/{which}/") for key in apart) >= 4
    ours, theirs = fingerprint(pair), fingerprint(alone)
    assert any(ours[key] != theirs[key] for key in ours if key.startswith("rank0/agent/critic/"))


def test_an_average_is_the_mean_over_ranks_and_what_is_exchanged_comes_in_their_order() -> None:
    port = free_port()
    queue = PROCESSES.Queue()
    processes = [PROCESSES.Process(target=_average, args=(rank, port, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    results = dict(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    for rank in range(2):
        (first, second), shared, exchanged = results[rank]
        assert first == [[1.5, 2.5, 3.5]] and second == [15.0]
        assert shared == [100.0]
        assert exchanged == [[1.0, 0.1], [2.0, 0.1]]


def _average(rank: int, port: int, queue: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    group = Group(Place(rank, 2, rank, "torchrun"), CPU)
    tensors = [torch.tensor([[1.0, 2.0, 3.0]]) + rank, torch.tensor([10.0]) * (1 + rank)]
    group.average(tensors)
    shared = torch.tensor([100.0 * (1 + rank)])
    group.share([shared])
    exchanged = group.exchange(np.array([1.0 + rank, 0.1]))
    queue.put((rank, ([t.tolist() for t in tensors], shared.tolist(), [values.tolist() for values in exchanged])))
    group.wait()
    group.leave()


def test_statistics_of_the_ranks_are_the_same_and_those_of_all_their_observations(pair: Path) -> None:
    assert differing(pair, "normalizer/") == []
    states = [state_of(pair, rank)["state"] for rank in range(2)]
    count, mean, squares = (states[0]["normalizer"][n]["__array__"].numpy() for n in ("count", "mean", "sum_squares"))
    each = [
        observed(replay_of(pair, rank)[:, 0], states[rank]["observation"]["__array__"].numpy()) for rank in range(2)
    ]
    pooled = np.concatenate(each)
    assert count.item() == len(pooled)
    np.testing.assert_allclose(mean[0], pooled.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.sqrt(squares[0] / len(pooled)), pooled.std(axis=0), rtol=1e-5)
    apart = each[0].mean(axis=0) - each[1].mean(axis=0)
    assert np.abs(apart).max() > 0.05, "the ranks saw the same, this shows nothing"


def test_ranks_explore_and_draw_on_their_own(pair: Path) -> None:
    rows = [replay_of(pair, rank)[:, 0] for rank in range(2)]
    firsts = [rows[rank][env, :11] for rank in range(2) for env in range(2)]
    assert len({row.tobytes() for row in firsts}) == 4, "episodes of two environments began alike"
    actions = np.concatenate([r[:20, 11:14] for r in rows])
    assert len(np.unique(actions, axis=0)) == len(actions)
    assert differing(pair, "draws/streams") == ["draws/streams"]


def test_steps_are_counted_over_all_ranks_and_updates_are_those_of_a_rank(pair: Path) -> None:
    assert pointer_of(pair) == {"step": 160, "ranks": 2}
    for rank in range(2):
        state = state_of(pair, rank)["state"]
        assert (state["step"], state["total"]) == (160, 80)
        assert state["agent"]["updates"] == 52  # the turns that end at 60, 64, ..., 160 owe two each
    steps = {int(r["step"]) for r in metrics_of(pair)}
    assert steps and all(step % 4 == 0 for step in steps)
    result = json.loads((pair / "result.json").read_text())
    assert (result["ranks"], result["steps"], result["updates"]) == (2, 160, 52)
    assert json.loads((pair / "manifest.json").read_text())["machine"]["ranks"] == "2"
    assert result["steps_per_second"] == pytest.approx(160 / result["seconds"])


def test_an_evaluation_is_the_same_on_all_ranks_and_in_one_process(pair: Path) -> None:
    assert differing(pair, "/last", "/best", "last/", "best/", "evaluated") == []
    single = Trainer(tiny(**PAIR), pair.parent / "single", quiet=True)
    state = state_of(pair)["state"]
    single.agent.load_state_dict(state["agent"])
    single.normalizer.load_state_dict({k: v["__array__"].numpy() for k, v in state["normalizer"].items()})
    returns = single.evaluator(single.actions)[0]
    assert len(set(returns)) == 3
    logged = {r["name"]: float(r["value"]) for r in metrics_of(pair) if r["kind"] == "eval" and r["step"] == "160"}
    assert logged["return_mean"] == pytest.approx(returns.mean(), rel=1e-6)
    assert logged["return_std"] == pytest.approx(returns.std(), rel=1e-5)


# A buffer that wraps, one evaluation episode: rank 1 plays none.
LAUNCHED: dict[str, Any] = {
    "env": HOPPER, "steps": 600, "start_steps": 30, "update_after": 40, "eval_every": 120, "eval_episodes": 1,
    "checkpoint_every": 40, "buffer_size": 50,
}  # fmt: skip


def test_two_ranks_killed_interrupted_and_resumed_end_as_the_uninterrupted_ones(tmp_path: Path) -> None:
    whole = installed("train", "--out", "whole", "--ranks", "2", *sets(**LAUNCHED), cwd=tmp_path)
    assert whole.communicate(timeout=120)[0].count("best mean return") == 1
    assert whole.returncode == 0 and pointer_of(tmp_path / "whole") == {"step": 600, "ranks": 2}

    arguments = ["train", "--out", str(tmp_path / "run"), *sets(**LAUNCHED)]
    worst = Fault("rename", "0*200-rank1.pt")  # rank 0 has written its state of step 200, rank 1 all rows up to it
    done = [child.wait() for child in start_ranks(arguments, tmp_path, fault=worst)]
    assert done[1].returncode == -signal.SIGKILL
    assert done[0].returncode == RankLost.exit_code, done[0]
    assert "rank 0 lost another rank" in done[0].stderr and "Traceback" not in done[0].stderr
    assert pointer_of(tmp_path / "run")["step"] == 160

    before = set(psutil.Process().children(recursive=True))
    with installed("train", "--resume", "run", cwd=tmp_path) as process:
        wait_for_step(tmp_path / "run", pointer_of(tmp_path / "run")["step"] + 80, lambda: process.poll() is None)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    step = pointer_of(tmp_path / "run")["step"]
    assert err.count(f"interrupted at step {step}; go on with: spikerl train --resume run") == 1
    assert "Traceback" not in err and step < 600

    with installed("train", "--resume", "run", "--ranks", "2", cwd=tmp_path) as process:
        assert process.communicate(timeout=120)[0].count("best mean return") == 1
    assert process.returncode == 0
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    _, alive = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, timeout=5)
    assert not alive


def test_a_rank_that_is_told_to_end_ends_all_of_them_at_the_same_step(tmp_path: Path) -> None:
    arguments = ["train", "--out", str(tmp_path / "run"), *sets(**PAIR)]
    fault = Fault("step", count=30, number=signal.SIGTERM, rank="1")
    done = [child.wait() for child in start_ranks(arguments, tmp_path, fault=fault)]
    assert [one.returncode for one in done] == [130, 130], done
    step = pointer_of(tmp_path / "run")["step"]
    assert f"interrupted at step {step}" in done[0].stderr
    assert state_of(tmp_path / "run", 1)["state"]["step"] == step < 160


def test_a_run_of_two_ranks_is_not_resumed_by_another_number(pair: Path, tmp_path: Path) -> None:
    shutil.copytree(pair, tmp_path / "run")
    arguments = ["train", "--resume", str(tmp_path / "run"), "--steps", "200"]
    error, hint = error_of(spikerl([*arguments, "--ranks", "3"], tmp_path))
    assert "--ranks 3" in error and "trained with 2" in error and "--ranks 2" in hint
    error, _ = error_of(spikerl(arguments, tmp_path, RANK="0", WORLD_SIZE="3", LOCAL_RANK="0"))
    assert "2" in error and "3" in error


def test_a_run_of_one_rank_is_not_resumed_by_two(tmp_path: Path) -> None:
    succeeded(spikerl(["train", "--out", str(tmp_path / "run"), *sets(steps=10, eval_every=10)], tmp_path))
    for child in start_ranks(["train", "--resume", str(tmp_path / "run"), "--steps", "30"], tmp_path):
        error, _ = error_of(child.wait(timeout=30))
        assert "1" in error and "2" in error and "rank1.pt" not in error


def test_ranks_meet_by_themselves_under_mpirun_on_one_machine(tmp_path: Path) -> None:
    run = run_pair(tmp_path, launcher="Open MPI", steps=20, eval_every=20, eval_episodes=1)
    assert pointer_of(run) == {"step": 20, "ranks": 2}


def test_a_seed_of_two_is_trained_by_two_ranks(tmp_path: Path) -> None:
    run = run_pair(tmp_path, seeds=2, steps=80, coding="poisson")
    assert differing(run, "agent/", "normalizer/") == []
    assert state_of(run)["state"]["agent"]["updates"] == 12
    assert (run / "seed-1" / "checkpoints" / "last.pt").is_file()


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
def test_two_ranks_under_mpirun(tmp_path: Path) -> None:
    command = [
        "mpirun",
        "-n",
        "2",
        "--allow-run-as-root",
        "--oversubscribe",
        str(Path(sys.executable).parent / "spikerl"),
    ]
    done = subprocess.run(
        [*command, "train", "--out", "run", *sets(**PAIR)], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port())}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert differing(tmp_path / "run", "agent/", "normalizer/") == []


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Place()),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Place(3, 8, 1, "torchrun")),
        ({"RANK": "3"}, Place()),
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
            Place(1, 2, 0, "Open MPI"),
        ),
        ({"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALRANKID": "0"}, Place(2, 4, 0, "MPICH")),
        ({"PMI_RANK": "2", "PMI_SIZE": "4"}, Place(2, 4, 2, "MPICH")),
        (
            {"SLURM_PROCID": "5", "SLURM_NTASKS": "6", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"},
            Place(5, 6, 1, "Slurm"),
        ),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "6", "SLURM_LOCALID": "0"}, Place()),  # an allocation, not srun
        (
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "1",
             "SLURM_STEP_ID": "0"},
            Place(1, 2, 1, "torchrun"),  # torchrun inside srun
        ),
    ],
)  # fmt: skip
def test_a_rank_finds_its_place(environment: dict[str, str], place: Place) -> None:
    assert find_place(environment) == place


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "x", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": ""},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "0"},
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "zero"},
        {"PMI_RANK": "4", "PMI_SIZE": "4"},
        {"SLURM_PROCID": "a", "SLURM_NTASKS": "1", "SLURM_STEP_ID": "0"},
    ],
)
def test_a_place_that_makes_no_sense_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(SpikerlError, match=next(iter(environment))) as error:
        find_place(environment)
    assert error.value.hint


@pytest.mark.parametrize(
    ("launcher", "variable"),
    [("Open MPI", "OMPI_COMM_WORLD_LOCAL_SIZE"), ("MPICH", "MPI_LOCALNRANKS"), ("Slurm", "SLURM_NTASKS_PER_NODE")],
)
def test_several_machines_need_a_place_to_meet(monkeypatch: pytest.MonkeyPatch, launcher: str, variable: str) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv(variable, "2")
    with pytest.raises(SpikerlError, match="4 ranks on several machines, and no MASTER_ADDR") as error:
        Group(Place(0, 4, 0, launcher), CPU)
    assert "MASTER_ADDR" in (error.value.hint or "")


def test_several_machines_without_a_place_to_meet_are_one_line(tmp_path: Path) -> None:
    environment = {
        "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "0",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    }  # fmt: skip
    error, hint = error_of(spikerl(["train", "--out", str(tmp_path / "run"), *sets()], tmp_path, **environment))
    assert "several machines" in error and "MASTER_ADDR" in hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("backend", "message"), [("mpi", "no 'mpi' backend, only gloo"), ("nccl", "nccl")])
def test_a_backend_that_is_not_there_is_one_line(tmp_path: Path, backend: str, message: str) -> None:
    if backend == "mpi" and torch.distributed.is_mpi_available():
        pytest.skip("this torch has MPI")
    arguments = ["train", "--out", str(tmp_path / "run"), *sets(), "--dist-backend", backend]
    place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    error, hint = error_of(spikerl(arguments, tmp_path, **place))
    assert message in error and "--dist-backend auto" in hint
    assert not (tmp_path / "run").exists()


def test_gloo_carries_tensors_of_the_cpu_and_one_rank_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    check_backend("gloo", CPU)
    group = Group(Place(), CPU, "mpi")
    assert (group.rank, group.size) == (0, 1)
    values = np.array([1.0, 2.0])
    assert [v.tolist() for v in group.exchange(values)] == [[1.0, 2.0]]
    group.wait()
    group.share([torch.zeros(1)])
    group.leave()


def test_a_place_that_makes_no_sense_is_one_line_of_the_command(tmp_path: Path) -> None:
    error, _ = error_of(spikerl(["train", *sets()], tmp_path, RANK="2", WORLD_SIZE="2"))
    assert "RANK=2" in error


def test_ranks_given_twice_must_agree(tmp_path: Path) -> None:
    place = {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}
    error, hint = error_of(spikerl(["train", "--ranks", "2", *sets()], tmp_path, **place))
    assert "--ranks 2" in error and "3" in error and "--ranks" in hint


def test_a_rank_whose_environment_fails_ends_the_others_with_its_error(tmp_path: Path) -> None:
    arguments = ["train", "--out", str(tmp_path / "run"), *sets(env="Clock-v0", steps=200, eval_every=200)]
    done = [child.wait(timeout=40) for child in start_ranks(arguments, tmp_path, fault=Fault("nan", rank="1"))]
    error, _ = error_of(done[1])
    assert "'Clock-v0' gave reward = nan at step 60 (environment 0, rank 1)" in error
    assert done[0].returncode == 75 and "Traceback" not in done[0].stderr, done[0].stderr  # the cause is elsewhere

"""Short training runs for the tests: settings, environments, processes that die when told to, and what a run left."""

from __future__ import annotations

import csv
import dataclasses
import errno
import fnmatch
import hashlib
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from support import ROOT

from simulators.torch_backend import TorchBackend
from spikerl_deploy.codec import decode, encode
from spikerl_deploy.policy import Policy
from training.distributed import LAUNCHERS
from training.resume import read_settings
from training.settings import Settings
from training.trainer import Result, Trainer

SOAK = os.environ.get("SPIKERL_SOAK") == "1"
soak = pytest.mark.skipif(not SOAK, reason="takes minutes; `make soak` runs it")
PENDULUM, HOPPER = "InvertedPendulum-v5", "Hopper-v5"
TINY: dict[str, Any] = {
    "hidden": (8,), "critic_hidden": (8,), "population": 4, "batch_size": 16, "steps": 400, "start_steps": 60,
    "update_after": 60, "eval_every": 200, "eval_episodes": 2, "tensorboard": False, "carbon": False, "device": "cpu",
}  # fmt: skip

# Processes are forked from one that has imported the long part; nothing in it has run torch.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["training.trainer", "spikerl_deploy.cli", "gymnasium.envs.mujoco.hopper_v5", "pytest"]
)


def tiny(**settings: Any) -> Settings:
    """Settings of a run that takes a second."""
    return Settings(**TINY | settings)


def sets(**settings: Any) -> list[str]:
    """The same settings as arguments of the command."""
    arguments = []
    for name, value in (TINY | settings).items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        arguments += ["--set", f"{name}={text}"]
    return arguments


class Clock(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observes (step of the episode, episode); episodes 0, 3, 6, ... terminate at step 4, 1, 4, ... at step 7, others
    never by themselves. The reward is the step. `bad` says what becomes NaN, or is raised, at the 30th step or at the
    third reset."""

    made: ClassVar[list[Clock]] = []  # those that were reset with a seed, in this process

    def __init__(self, bad: str = "") -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(np.float32([-1, 0]), np.float32([1, 4]))
        self.bad, self.total, self.episode = bad, 0, -1
        self.seen: list[np.ndarray] = []

    def _observe(self) -> np.ndarray:
        self.seen.append(np.array([self.k, self.episode], dtype=np.float64))
        return self.seen[-1].copy()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        if seed is not None and self not in Clock.made:
            Clock.made.append(self)
        self.k, self.episode = 0, self.episode + 1
        if self.bad == "raises at reset" and self.episode == 2:
            raise KeyError("no\nlicence")
        observation = self._observe()
        return (observation * np.nan if self.bad == "reset" and self.episode == 2 else observation), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action) or np.isnan(action).any()
        self.k, self.total = self.k + 1, self.total + 1
        observation, reward = self._observe(), float(self.k)
        if self.total == 30:
            if self.bad == "raises":
                raise RuntimeError("out of\nfuel")
            observation = observation * np.nan if self.bad == "observation" else observation
            reward = np.nan if self.bad == "reward" else reward
        return observation, reward, self.k == (4, 7, 99)[self.episode % 3], False, {}


class Echo(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observes noise of its seed and pays the action."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gymnasium.spaces.Box(np.float32([-1, 0]), np.float32([1, 4]))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self.np_random.normal(5, 2, 3), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self.np_random.normal(5, 2, 3), float(action.sum()), False, False, {}


for _name, _limit in (("Clock", 7), ("Echo", 20)):
    if f"{_name}-v0" not in gymnasium.registry:
        gymnasium.register(
            f"{_name}-v0", f"training_support:{_name}", max_episode_steps=_limit, disable_env_checker=True
        )


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a process, and when.

    Attributes:
        at: `step` (an environment's), what happens to a file: `write`, `rename`, `renamed`, `remove`, `flush`; or
            `alone`: gradients are never averaged over ranks; or `nan`: Clock pays NaN at its 30th step.
        name: pattern of the file's name.
        count: which time.
        number: signal that the process sends itself.
        rank: which of several ranks it happens to; all by default.
        full: bytes that a file may have from then on, instead of a signal; or, with a name, a file that is full.
    """

    at: str
    name: str = "*"
    count: int = 1
    number: int = signal.SIGKILL
    full: int | None = None
    rank: str | None = None


def _arm(fault: Fault) -> None:
    """Patch this process, which is a test's own, so that the fault happens."""
    seen = 0
    if fault.rank not in (None, os.environ.get("RANK")):
        return

    def happens(name: str) -> bool:
        nonlocal seen
        seen += fnmatch.fnmatch(name, fault.name) or fault.at == "step"
        return seen == fault.count and (fnmatch.fnmatch(name, fault.name) or fault.at == "step")

    def strike() -> None:
        if fault.full is None:
            os.kill(os.getpid(), fault.number)
        elif fault.at == "step" and fault.name != "*":  # every later write to this open file fails
            for link in Path("/proc/self/fd").iterdir():
                if fnmatch.fnmatch(str(link.readlink()), f"*/{fault.name}"):
                    os.dup2(os.open("/dev/full", os.O_WRONLY), int(link.name))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.full, resource.RLIM_INFINITY))

    if fault.at == "alone":
        from training.distributed import Group

        Group.average = lambda self, tensors: None
    elif fault.at == "nan":
        gymnasium.registry["Clock-v0"].kwargs["bad"] = "reward"
    elif fault.at == "step":
        from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

        simulate = MujocoEnv.do_simulation

        def do_simulation(self: Any, *arguments: Any) -> None:
            if happens(""):
                strike()
            simulate(self, *arguments)

        MujocoEnv.do_simulation = do_simulation
    elif fault.at == "write":
        write_bytes = Path.write_bytes

        def write(self: Path, data: Any) -> int:
            if happens(self.name):
                write_bytes(self, bytes(data)[: len(data) // 2])
                strike()
            return write_bytes(self, data)

        Path.write_bytes = write
    elif fault.at in ("rename", "renamed"):
        rename = Path.replace

        def replace(self: Path, target: Path) -> Path:
            struck = happens(Path(target).name)
            if struck and fault.at == "rename":
                strike()
            done = rename(self, target)
            if struck:
                strike()
            return done

        Path.replace = replace
    elif fault.at == "remove":
        remove = Path.unlink

        def unlink(self: Path, missing_ok: bool = False) -> None:
            if happens(self.name):
                strike()
            remove(self, missing_ok)

        Path.unlink = unlink
    elif fault.at == "flush":
        flush = np.memmap.flush

        def flush_memmap(self: np.memmap) -> None:
            if happens(Path(self.filename).name):
                strike()
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            flush(self)

        np.memmap.flush = flush_memmap
    else:
        raise ValueError(fault.at)


def _cli(
    arguments: list[str], folder: Path, fault: Fault | None, environment: dict[str, str], out: Any, err: Any
) -> None:
    """The command in this process, its output into two pipes: those are never full."""
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    os.environ.update(environment)
    os.chdir(folder)
    if fault is not None:
        _arm(fault)
    sys.argv = ["spikerl", *arguments]
    from spikerl_deploy.cli import main

    main()


class Child:
    """A process that runs `spikerl ARGUMENTS`; without the seconds that an interpreter takes to import torch."""

    def __init__(self, arguments: list[str], folder: Path, fault: Fault | None = None, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        environment = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "300"} | environment
        self._outputs, writers = zip(*(PROCESSES.Pipe(duplex=False) for _ in range(2)), strict=True)
        self.process = PROCESSES.Process(target=_cli, args=(arguments, folder, fault, environment, *writers))
        self.process.start()
        for writer in writers:
            writer.close()

    def wait(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        self.process.join(timeout)
        late = self.process.is_alive()
        if late:
            self.process.kill()
            self.process.join()
        out, err = (_read(output.fileno()) for output in self._outputs)
        assert not late, f"no end after {timeout} s: {out} {err}"
        return subprocess.CompletedProcess([], self.process.exitcode or 0, out, err)


def _read(file: int) -> str:
    """What a pipe holds; its writers are gone, and wrote less than it takes."""
    chunks = []
    while chunk := os.read(file, 1 << 16):
        chunks.append(chunk)
    return b"".join(chunks).decode()


def spikerl(
    arguments: list[str], folder: Path, fault: Fault | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`spikerl ARGUMENTS` in a forked process, to its end."""
    return Child(arguments, folder, fault, **environment).wait()


def train(folder: Path, name: str, fault: Fault | None = None, **settings: Any) -> subprocess.CompletedProcess[str]:
    """`spikerl train` into `folder / name`."""
    return spikerl(["train", "--out", str(folder / name), *sets(**settings)], folder / f"{name}.log", fault)


def resume(folder: Path, name: str, *more: str, fault: Fault | None = None) -> subprocess.CompletedProcess[str]:
    """`spikerl train --resume` of `folder / name`."""
    return spikerl(["train", "--resume", str(folder / name), *more], folder / f"{name}.log", fault)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_ranks(
    arguments: list[str], folder: Path, size: int = 2, launcher: str = "torchrun", fault: Fault | None = None
) -> list[Child]:
    """`spikerl ARGUMENTS` as the ranks of a launcher, each in a process of its own."""
    names = LAUNCHERS[launcher]
    meeting = {"MASTER_PORT": str(free_port())} | ({"MASTER_ADDR": "127.0.0.1"} if launcher == "torchrun" else {})
    return [
        Child(
            arguments, folder, fault,
            **dict(zip(names, (str(rank), str(size), str(rank)), strict=True)), **meeting,
        )
        for rank in range(size)
    ]  # fmt: skip


def go_on(run: Path, **changes: Any) -> Result:
    """The rest of a run, in this process."""
    settings, _ = read_settings(run)
    return Trainer(dataclasses.replace(settings, **changes), run, quiet=True, resume=True).run()


def succeeded(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stderr
    return done


def error_of(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """Error line and hint of a command that failed by the rules."""
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[-2].startswith("Error: ") and lines[-1].startswith("Hint: "), done.stderr
    return lines[-2], lines[-1]


def installed(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """The installed command, started and not waited for."""
    return subprocess.Popen(
        [str(Path(sys.executable).parent / "spikerl"), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip


def wait_for_step(run: Path, step: int, alive: Any, timeout: float = 120) -> None:
    """Return once a run has saved its state at a step or later; `alive()` is false if its process has ended."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if pointer_of(run).get("step", -1) >= step:
            return
        assert alive(), "it ended before"
        time.sleep(0.02)
    raise AssertionError(f"no state at step {step} after {timeout} s")


def deployed_return(policy: Policy, env: gymnasium.Env[Any, Any], seed: int) -> float:
    """Return of one episode by the deployment path: NumPy codec around a float backend."""
    observation, _ = env.reset(seed=seed)
    assert policy.decoder is not None
    total, done = 0.0, False
    with TorchBackend(device="cpu").open(policy) as session:
        while not done:
            counts = session.infer(encode(policy, observation[None], [])).output_counts
            action = decode(counts, policy.time_steps, policy.decoder)[0]
            observation, reward, terminated, truncated, _ = env.step(action)
            total, done = total + float(reward), terminated or truncated
    return total


def pointer_of(run: Path) -> dict[str, int]:
    path = run / "resume" / "latest.json"
    return json.loads(path.read_text()) if path.exists() else {}


def state_of(run: Path, rank: int = 0) -> dict[str, Any]:
    """A rank's saved state, arrays as tensors."""
    (path,) = (run / "resume").glob(f"{pointer_of(run)['step']:012d}-rank{rank}.pt")
    document: dict[str, Any] = torch.load(path, weights_only=True)
    return document


def replay_of(run: Path, rank: int = 0) -> np.ndarray:
    """Rows [size, S, width] of a saved run's replay buffer, the oldest first."""
    document = state_of(run, rank)
    settings, state = json.loads(document["settings"]), document["state"]
    obs_dim = state["observation"]["shape"][1]
    act_dim = state["agent"]["critic"]["weights.0"].shape[2] - obs_dim
    shape = (-1, settings["seeds"], 2 * obs_dim + act_dim + 2)
    ring = np.fromfile(run / "resume" / f"replay-rank{rank}.bin", np.float32).reshape(shape)
    total, size = state["total"], min(state["total"], settings["buffer_size"])
    return ring[np.arange(total - size, total) % len(ring)]


def observed(rows: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Every observation of one seed's environments, from their transitions in turn and their present observations.

    Each arrival of `rows` [size, width] counts, and each first observation of an episode, those of episodes that have
    just begun among the present ones [num_envs, obs_dim].
    """
    num_envs, obs_dim = present.shape
    found = []
    for env in range(num_envs):
        o_tm1, o_t = rows[env::num_envs, :obs_dim], rows[env::num_envs, -1 - obs_dim : -1]
        first = np.ones(len(o_tm1), bool)
        first[1:] = (o_tm1[1:] != o_t[:-1]).any(axis=1)
        found += [o_t, o_tm1[first]]
        if (present[env].astype(np.float32) != o_t[-1]).any():
            found.append(present[env : env + 1])
    return np.concatenate(found).astype(np.float64)


def metrics_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def fingerprint(run: Path) -> dict[str, str]:
    """Everything that a run computed, by name: states, replay buffers, policies and metrics, without times."""
    found: dict[str, str] = {"pointer": json.dumps(pointer_of(run))}
    for rank in range(pointer_of(run)["ranks"]):
        document = state_of(run, rank)
        kept = {k: v for k, v in document["state"].items() if k not in ("seconds", "marks", "carbon")}
        found |= _flat(kept, f"rank{rank}") | {f"rank{rank}/settings": document["settings"]}
        if (run / "resume" / f"replay-rank{rank}.bin").exists():
            found[f"rank{rank}/replay"] = _digest(replay_of(run, rank))
    for path in sorted(run.rglob("checkpoints/*.pt")):
        found |= _flat(torch.load(path, weights_only=True), str(path.relative_to(run)))
    for path in sorted(run.rglob("metrics.csv")):
        timeless = [{k: v for k, v in row.items() if "second" not in k} for row in metrics_of(path.parent)]
        found |= {f"{path.relative_to(run)}:{number}": str(row) for number, row in enumerate(timeless)}
    return found


def assert_same_run(run: Path, reference: Path, but: str = "") -> None:
    """Both runs computed the same, to the bit."""
    mine, theirs = fingerprint(run), fingerprint(reference)
    different = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key) and key != but)
    assert not different, {key: (mine.get(key), theirs.get(key)) for key in different[:6]} | {"of": len(different)}


def _flat(value: Any, name: str) -> dict[str, str]:
    if isinstance(value, torch.Tensor):
        return {name: _digest(value.numpy())}
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{name}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for key, item in enumerate(value) for k, v in _flat(item, f"{name}/{key}").items()}
    return {name: repr(value)}


def _digest(values: np.ndarray) -> str:
    return (
        f"{values.dtype}{list(values.shape)} {hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]}"
    )


def rows_of(trainer: Trainer) -> np.ndarray:
    """Rows [size, S, width] that a trainer's buffer holds, the oldest first."""
    replay = trainer.replay
    index = torch.arange(replay.size).repeat(replay.seeds, 1)
    return replay.gather(index).numpy().swapaxes(0, 1)


def saved_numbers(run: Path) -> Iterator[tuple[str, float]]:
    """Every number that a run has saved, except its statistics over no episode yet, which are infinite."""
    for path in (*run.rglob("*.pt"),):
        for name, values in _tensors(torch.load(path, weights_only=True), path.name):
            if values.is_floating_point() and not name.endswith(("/best/__array__", "/last/__array__")):
                yield from ((name, float(value)) for value in values.flatten())
    for path in run.rglob("metrics.csv"):
        yield from ((f"{path.name}:{row['name']}", float(row["value"])) for row in metrics_of(path.parent))


def _tensors(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _tensors(item, f"{name}/{key}")

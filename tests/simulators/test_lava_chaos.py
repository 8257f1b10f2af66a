"""Closed loops on Lava while its processes are killed, stopped and fed damaged bytes, at random moments.

Every run ends in time, with the result of `fixed` or with one clear error, and leaves nothing behind. A few rounds
here, many with SPIKERL_SOAK=1 (`make soak`).
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import psutil
import pytest
from support import quantized_policy, random_spikes

from simulators.fixed import FixedBackend
from simulators.lava import client as client_module
from simulators.lava.backend import LavaBackend
from simulators.lava.client import SHARED_MEMORY, group_members
from simulators.lava.session import LavaSession
from simulators.rollout import rollout
from spikerl_deploy.errors import SpikerlError

SOAK = os.environ.get("SPIKERL_SOAK") == "1"
soak = pytest.mark.skipif(not SOAK, reason="long: make soak")
TIMEOUT = 8.0  # for an answer of the worker
ATTACKS_A_RUN = 3 if SOAK else 1
RUN_LIMIT = 90.0  # for a whole run: a few time limits, a few new workers, and a busy machine
ENV, SEEDS = "InvertedPendulum-v5", range(20)


def segments() -> set[str]:
    """Names of shared-memory segments of Lava's workers that no living process has mapped."""
    named = {path.name for path in SHARED_MEMORY.glob("spikerl-*")}
    if named:
        time.sleep(0.1)  # one that has just been made is mapped by then
    mapped: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            mapped |= set(re.findall(r"/dev/shm/(spikerl-\S+)", maps.read_text(encoding="utf-8")))
        except OSError:
            continue  # it has ended, or is not ours
    return {name for name in named - mapped if (SHARED_MEMORY / name).exists()}


@cache
def wanted() -> tuple[float, ...]:
    with FixedBackend().open(quantized_policy()) as session:
        return rollout(session, ENV, SEEDS).returns


class Relay:
    """Stands between client and worker, and damages one byte where it is told to."""

    def __init__(self) -> None:
        self.damage_after: int | None = None
        self.made = socket.socketpair

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """What `socket.socketpair` gives, with the relay in between."""
        ours, near = self.made()
        far, theirs = self.made()
        for source, target in ((near, far), (far, near)):
            threading.Thread(target=self._pass_on, args=[source, target], daemon=True).start()
        return ours, theirs

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while block := bytearray(source.recv(1 << 16)):
                if self.damage_after is not None:
                    self.damage_after -= len(block)
                    if self.damage_after < 0:
                        block[self.damage_after % len(block)] ^= 0x55
                        self.damage_after = None
                target.sendall(block)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Relay:
    """A relay that every worker of the test is reached through."""
    relay = Relay()

    class Module:
        """The client's view of the `socket` module."""

        socket = socket.socket
        socketpair = staticmethod(relay.pair)

    monkeypatch.setattr(client_module, "socket", Module)
    return relay


def members(session: LavaSession) -> list[psutil.Process]:
    return group_members(session.client.process.pid)


def kill_one(session: LavaSession, relay: Relay, rng: random.Random) -> None:
    rng.choice(members(session)).kill()


def kill_all(session: LavaSession, relay: Relay, rng: random.Random) -> None:
    os.killpg(session.client.process.pid, signal.SIGKILL)


def stop_one(session: LavaSession, relay: Relay, rng: random.Random) -> None:
    rng.choice(members(session)).suspend()


def stop_and_kill(session: LavaSession, relay: Relay, rng: random.Random) -> None:
    for process in rng.sample(members(session), 2):
        process.suspend()
    rng.choice(members(session)).kill()


def damage(session: LavaSession, relay: Relay, rng: random.Random) -> None:
    relay.damage_after = rng.randrange(2_000)


ATTACKS = (kill_one, kill_all, stop_one, stop_and_kill, damage)
ROUNDS = [(attack, seed) for seed in range(20 if SOAK else 1) for attack in ATTACKS]


@pytest.mark.parametrize(("attack", "seed"), ROUNDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_closed_loop_under_attack_ends_in_time_with_the_right_result_or_a_clear_error(
    lava_folder: Path, relay: Relay, attack: Callable[..., None], seed: int
) -> None:
    rng = random.Random(f"{attack.__name__} {seed}")
    before, started, groups, attacks = segments(), time.monotonic(), set(), 0
    done = threading.Event()

    def attacker() -> None:
        nonlocal attacks
        while not done.wait(rng.uniform(0.05, 0.8)) and attacks < ATTACKS_A_RUN:
            group = session.client.process.pid
            if group not in groups:
                groups.add(group)
                try:
                    attack(session, relay, rng)
                except (psutil.NoSuchProcess, ProcessLookupError, IndexError, ValueError):
                    continue  # it was between two workers
                attacks += 1

    session = LavaBackend(timeout=TIMEOUT).open(quantized_policy())
    thread = threading.Thread(target=attacker)
    thread.start()
    try:
        while True:  # until it was attacked
            assert rollout(session, ENV, SEEDS).returns == wanted()
            if attacks == ATTACKS_A_RUN or time.monotonic() - started > RUN_LIMIT / 2:
                break
    except SpikerlError as error:
        clear = error.message.startswith("lava worker failed: ") and "\n" not in error.message and error.hint
        outcome = "clear error" if clear else repr(error)
    else:
        outcome = "right result"
    finally:
        done.set()
        thread.join()
        groups.add(session.client.process.pid)
        session.close()
    assert outcome in ("right result", "clear error")
    assert attacks >= 1
    assert time.monotonic() - started < RUN_LIMIT
    assert [group for group in groups if group_members(group)] == []
    assert segments() <= before


@pytest.fixture
def marked() -> Iterator[Callable[[], list[psutil.Process]]]:
    """Finds the processes that inherited this test's mark in their environment."""
    mark = f"test-{os.getpid()}-{time.monotonic_ns()}"
    os.environ["SPIKERL_TEST_MARK"] = mark

    def find() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["status"]):
            try:
                if process.environ().get("SPIKERL_TEST_MARK") == mark and process.pid != os.getpid():
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return [process for process in found if process.info["status"] != psutil.STATUS_ZOMBIE]

    yield find
    del os.environ["SPIKERL_TEST_MARK"]


@pytest.mark.parametrize("delay", [0.3 * step for step in range(1, 40)] if SOAK else [1.0, 2.5, 5.0])
def test_an_interrupt_at_any_moment_leaves_nothing_behind(
    lava_folder: Path, double_pendulum: Path, marked: Callable[[], list[psutil.Process]], delay: float
) -> None:
    before = segments()
    command = [str(Path(sys.executable).parent / "spikerl"), "simulate", str(double_pendulum)]
    run = subprocess.Popen(
        [*command, "--backend", "lava", "--episodes", "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a terminal does it: the signal goes to the whole group
    )
    time.sleep(delay)
    os.killpg(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=30)
    assert run.returncode in (130, -signal.SIGINT), said
    deadline = time.monotonic() + 10
    while (marked() or not segments() <= before) and time.monotonic() < deadline:  # other tests may run beside it
        time.sleep(0.1)
    assert marked() == []
    assert segments() <= before


@soak
def test_two_hundred_cycles_leak_no_process_no_descriptor_and_no_shared_memory(
    lava_folder: Path, marked: Callable[[], list[psutil.Process]]
) -> None:
    policy, spikes, before = quantized_policy(), random_spikes(0, (1, 5, 40)), segments()
    descriptors = []
    for _ in range(200):
        with LavaBackend().open(policy) as session:
            session.infer(spikes)
        descriptors.append(len(os.listdir("/proc/self/fd")))
        assert marked() == []
        assert segments() <= before
    assert max(descriptors) == descriptors[0]


@soak
def test_twenty_thousand_control_steps_grow_no_memory(lava_folder: Path) -> None:
    policy = quantized_policy()
    blocks = random_spikes(0, (100, 1, 5, 40))
    resident = []
    with LavaBackend().open(policy) as session:
        for step in range(20_000):
            session.infer(blocks[step % 100])
            if step % 1_000 == 999:
                resident.append(sum(process.memory_info().rss for process in members(session)))
    assert resident[-1] <= resident[1] * 1.02, resident

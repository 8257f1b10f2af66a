"""A sweep: trials of a study, each trained with every seed, by one process or several on one folder."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from optuna.trial import Trial

from spikerl_deploy.environments import spec_of
from spikerl_deploy.errors import SpikerlError
from training.signals import interrupts
from training.sweep_results import Summary
from training.sweep_space import OBJECTIVES, SweepPlan
from training.sweep_study import StudyError, SweepStudy

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130  # exit code of a worker that a signal stopped


@dataclass(frozen=True)
class _Outcome:
    """What became of a trial: the objective of each seed that was trained, and why it ended early, if it did."""

    returns: list[float]
    pruned: bool = False
    interrupted: bool = False
    error: str | None = None


def run_sweep(plan: SweepPlan, folder: Path, processes: int = 1, quiet: bool = False) -> Summary:
    """Start or continue a sweep until its trials are done or a signal comes; other processes may work on it as well.

    Raises:
        SpikerlError: what all trials share cannot be used, or the folder holds something else.
    """
    _check_shared(plan)
    with SweepStudy(plan, folder):  # creates it, or refuses a changed space, before any process starts
        pass
    interrupted = processes > 1 and _supervise(plan, folder, min(processes, plan.trials), quiet)
    # after processes that were killed, something may be left to do
    interrupted = interrupted or _work(plan, folder, quiet)
    with SweepStudy(plan, folder) as study:
        return replace(study.summary(), interrupted=interrupted)


def objective_of(name: str, returns: list[float]) -> float:
    """Objective of a run from the mean returns of its evaluations, in their order; NaN if there is none."""
    if not returns:
        return math.nan
    last = returns[-10:]
    return {"best": max(returns), "final": returns[-1], "last10": math.fsum(last) / len(last)}[name]


def _check_shared(plan: SweepPlan) -> None:
    """Refuse at once what would fail in every trial."""
    spec_of(plan.settings.env)
    if plan.settings.device == "cuda":
        from training.device import choose_device

        choose_device("cuda")
    if plan.settings.carbon:
        from training.carbon import CarbonTracker

        CarbonTracker(True, plan.settings.country).stop()


def _work(plan: SweepPlan, folder: Path, quiet: bool) -> bool:
    """Run trials until none is left to start; answer whether a signal ended it."""
    with interrupts() as seen, SweepStudy(plan, folder) as study:
        while not seen and (trial := study.claim()) is not None:
            if not quiet:
                point = ", ".join(f"{name} = {value}" for name, value in plan.values(trial.params).items())
                _say(f"trial {trial.number} starts: {point}")
            try:
                outcome = _run_trial(plan, study, trial, seen)
            except BaseException:
                study.abandon(trial)
                raise
            if outcome.interrupted:
                study.abandon(trial)
                return True
            study.finish(trial, outcome.returns, outcome.pruned, outcome.error)
            if not quiet:
                _say_outcome(plan, study.summary(), trial.number, outcome)
    return bool(seen)


def _run_trial(plan: SweepPlan, study: SweepStudy, trial: Trial, seen: list[int]) -> _Outcome:
    """Train the trial's point with one seed after the other.

    Intermediate values are the means over the seeds so far, the present one with its objective so far, at the count of
    environment steps of all seeds: at one step, all trials report the same quantity.
    """
    from training.trainer import Trainer  # here, so that who only supervises loads no torch

    done: list[float] = []
    seeds, name = plan.options.seeds, plan.options.objective
    for seed in seeds:
        out = study.folder / f"trial-{trial.number:04}" / f"seed-{seed}"
        evaluations: dict[int, float] = {}

        def look(step: int, mean_return: float, evaluations: dict[int, float] = evaluations) -> bool:
            evaluations[step] = mean_return
            so_far = [*done, objective_of(name, list(evaluations.values()))]
            prune = study.report(trial, len(done) * plan.settings.steps + step, math.fsum(so_far) / len(so_far))
            at_end = len(so_far) == len(seeds) and step >= plan.settings.steps  # nothing is left to save
            return bool(seen) or (prune and not at_end)

        try:
            kept = replace(plan.trial_settings(trial.params, seed), save_replay=False)  # one that is lost starts over
            result = Trainer(kept, out, force=True, quiet=True, on_evaluation=look).run()
        except StudyError:  # in `look`
            raise
        except SpikerlError as error:  # the point's own: values at odds, not finite numbers, no memory
            return _Outcome(done, error=error.message)
        if seen or result.stopped == "interrupted":
            return _Outcome(done, interrupted=True)
        evaluations[result.steps] = result.final_return  # the evaluation that reaches stop_return is not looked at
        done.append(objective_of(name, list(evaluations.values())))
        if result.stopped == "pruned":
            return _Outcome(done, pruned=True)
    return _Outcome(done)


def _say_outcome(plan: SweepPlan, summary: Summary, number: int, outcome: _Outcome) -> None:
    count = sum(summary.counts[state] for state in ("complete", "pruned", "failed"))
    if outcome.error is not None:
        what = f"failed: {outcome.error}"
    elif outcome.pruned:
        what = f"pruned with seed {plan.options.seeds[len(outcome.returns) - 1]}"
    else:
        mean = math.fsum(outcome.returns) / len(outcome.returns)
        what = f"{OBJECTIVES[plan.options.objective]} {mean:.1f} over {len(outcome.returns)} seed(s)"
    best = f"; best {summary.best.value:.1f} (trial {summary.best.trial})" if summary.best is not None else ""
    _say(f"trial {number}: {what}{best}; {count} of {summary.total} trials")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _supervise(plan: SweepPlan, folder: Path, count: int, quiet: bool) -> bool:
    """Run worker processes until all have ended, hand signals on to them; answer whether one came.

    Raises:
        SpikerlError: that of the first worker that had one; the others are stopped.
    """
    context = multiprocessing.get_context("spawn")  # torch and its threads do not survive a fork
    workers: dict[BaseProcess, Connection] = {}
    seen: list[int] = []

    def hand_on(number: int, _frame: object) -> None:
        seen.append(number)
        _stop(workers)

    previous = {number: signal.signal(number, hand_on) for number in SIGNALS}
    error: tuple[str, str | None] | None = None
    try:
        for _ in range(count):
            if seen:
                break
            receiver, sender = context.Pipe(duplex=False)
            worker: BaseProcess = context.Process(target=_worker, args=(plan, folder, quiet, sender))
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited: none strikes a worker before it is ready
            try:
                worker.start()
                workers[worker] = receiver
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            sender.close()
        running = dict(workers)
        while running:
            wait([worker.sentinel for worker in running])
            for worker in [worker for worker in running if worker.exitcode is not None]:
                receiver = running.pop(worker)
                if not quiet and (worker.exitcode or 0) < 0:
                    _say(f"a worker was killed by signal {-(worker.exitcode or 0)}; its trial is tried again")
                if receiver.poll() and error is None:
                    try:
                        error = receiver.recv()
                    except EOFError:  # it ended without a word
                        continue
                    _stop(running)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if error is not None:
        raise SpikerlError(*error)
    return bool(seen)


def _stop(workers: dict[BaseProcess, Connection]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.terminate()


def _worker(plan: SweepPlan, folder: Path, quiet: bool, sender: Connection) -> None:
    """A worker process. It leaves the terminal's group, so that Ctrl-C reaches it once, through its parent."""
    os.setpgid(0, 0)
    parent = multiprocessing.parent_process()

    def outlive_nobody() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=outlive_nobody, daemon=True).start()
    try:
        with interrupts() as seen:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            interrupted = bool(seen) or _work(plan, folder, quiet)
    except SpikerlError as error:
        sender.send((error.message, error.hint))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        interrupted = True
    sys.exit(INTERRUPTED if interrupted else 0)

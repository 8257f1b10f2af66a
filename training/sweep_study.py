"""The study of a sweep folder: an Optuna study in SQLite that several processes share, each trial claimed by one."""

from __future__ import annotations

import math
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import write_text
from training.sweep_dimension import Dimension
from training.sweep_locks import Locks
from training.sweep_results import COUNTED, RETRIED, Summary, summarise, trial_state, write_results
from training.sweep_space import OBJECTIVES, SweepPlan

STUDY_NAME = "spikerl-sweep"
LOCK_FILE = ".lock"
SQLITE_TIMEOUT = 120  # seconds that a process waits for another's write
MAX_DEATHS = 3  # times that a point may take its process down before it counts as failed

optuna.logging.set_verbosity(optuna.logging.ERROR)  # the sweep says itself what happens


def _check_folder(folder: Path) -> None:
    """Check that the folder is missing or empty, or holds a sweep.

    Raises:
        SpikerlError: it holds something else.
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise SpikerlError(f"cannot use '{folder}' for a sweep: {error.strerror}", "choose another --out") from error
    if names - {LOCK_FILE} and not ("study.db" in names and names & {LOCK_FILE, "space.toml"}):
        raise SpikerlError(f"'{folder}' is no sweep folder and is left as it is", "choose another --out")


class StudyError(SpikerlError):
    """The study itself cannot be used; no trial's fault."""


class SweepStudy:
    """The study of a folder, created or continued; one object a process at a time, to be closed.

    Raises:
        SpikerlError: the folder holds something else, or a sweep of another space; the database cannot be used.
    """

    def __init__(self, plan: SweepPlan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        _check_folder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpikerlError(f"cannot write '{folder}': {error.strerror}", "choose a writable --out") from error
        self._locks = Locks(folder / LOCK_FILE)
        self._distributions = {dimension.name: _distribution(dimension) for dimension in plan.dimensions}
        try:
            with self._exclusive():
                self._storage = self._open_storage()
                self._study = self._open_study()
        except BaseException:
            self._locks.close()
            raise

    def __enter__(self) -> SweepStudy:
        return self

    def __exit__(self, *_: object) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()
        self._locks.close()

    def claim(self) -> Trial | None:
        """A trial to run, with its point drawn, or None if no more are to be started.

        What is drawn depends on the sampler's seed, the count of points drawn so far and the finished trials only: one
        process draws the same points whether or not it is interrupted, and several draw different ones.
        """
        with self._exclusive():
            self._recover()
            trials = self._study.get_trials(deepcopy=False)
            states = [trial_state(trial) for trial in trials]
            if sum(state in COUNTED for state in states) >= self.plan.trials:
                return None
            if "waiting" not in states:
                drawn = sum("retry_of" not in t.user_attrs and not self._is_torn(t) for t in trials)
                self._study.sampler = self._sampler(drawn)
                if self.plan.options.sampler == "grid":
                    self._study.enqueue_trial(self.plan.grid_point(drawn))
            trial = self._study.ask(self._distributions)
            self._locks.hold(trial.number)
            return trial

    def report(self, trial: Trial, step: int, value: float) -> bool:
        """Record an intermediate value and answer whether the pruner would stop the trial."""
        with self._storage_errors():
            trial.report(value, step)
            return trial.should_prune()

    def finish(self, trial: Trial, returns: list[float], pruned: bool = False, error: str | None = None) -> None:
        """Record the outcome of a trial: the objective of each seed, or what went wrong."""
        value = math.fsum(returns) / len(returns) if returns else math.nan
        if error is None and not pruned and not math.isfinite(value):
            error = f"the objective is {value}"
        with self._exclusive():
            trial.set_user_attr("returns", [value for value in returns if math.isfinite(value)])
            if error is not None:
                trial.set_user_attr("error", error)
                self._study.tell(trial, state=TrialState.FAIL)
            elif pruned:
                self._study.tell(trial, state=TrialState.PRUNED)
            else:
                self._study.tell(trial, value)
            self._locks.free(trial.number)
            self._write_results()

    def abandon(self, trial: Trial) -> None:
        """Give back a trial that was interrupted; its point is the next that is tried."""
        with self._exclusive():
            trial.set_user_attr("interrupted", True)
            self._requeue(trial.number)
            self._locks.free(trial.number)
            self._write_results()

    def summary(self) -> Summary:
        """Counts and best trial; rewrites the results, which a killed process may have left behind."""
        with self._exclusive():
            return summarise(self.plan, self._write_results())

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._locks.study(), self._storage_errors():
            yield

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            cause = error.__cause__ or error
            line = next(iter(str(getattr(cause, "orig", None) or cause).splitlines()), "")
            path = self.folder / "study.db"
            raise StudyError(f"cannot use study '{path}': {line}", "check space and rights, or --out") from error

    def _open_storage(self) -> optuna.storages.RDBStorage:
        path = self.folder / "study.db"
        # a creator, since Optuna and SQLAlchemy read braces, question marks and percent signs of an address; the
        # rollback journal, unlike WAL, keeps the study in one file that can be copied
        creator = partial(sqlite3.connect, path, timeout=SQLITE_TIMEOUT)
        return optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": creator, "poolclass": NullPool})

    def _open_study(self) -> optuna.Study:
        names = [study.study_name for study in self._storage.get_all_studies()]
        if names and STUDY_NAME not in names:
            raise SpikerlError(f"'{self.folder}/study.db' holds another study: {names[0]}", "choose another --out")
        options = self.plan.options
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if options.pruner == "median":
            learning = max(self.plan.settings.start_steps, self.plan.settings.update_after)  # before it, all are alike
            pruner = optuna.pruners.MedianPruner(options.startup_trials, n_warmup_steps=learning)
        study = optuna.create_study(
            storage=self._storage,
            study_name=STUDY_NAME,
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(options.sampler_seed),
            pruner=pruner,
            load_if_exists=True,
        )
        identity, stored = self.plan.identity(), study.user_attrs.get("plan")
        if stored is None:
            study.set_user_attr("plan", identity)
            study.set_user_attr("objective", OBJECTIVES[options.objective])
        elif (stored := self.plan.stored_identity(stored)) != identity:
            difference = _difference(stored, identity)
            raise SpikerlError(
                f"sweep '{self.folder}' was started with {difference}", "undo the change, or choose another --out"
            )
        for name, text in (("space.toml", self.plan.text), ("fixed.toml", self.plan.fixed_toml())):
            if not (self.folder / name).exists():
                write_text(self.folder / name, text)
        return study

    def _write_results(self) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        write_results(self.plan, trials, self.folder)
        return trials

    def _sampler(self, drawn: int) -> optuna.samplers.BaseSampler:
        """The sampler for the next point, seeded by how many were drawn before."""
        options = self.plan.options
        seed = int(np.random.SeedSequence([options.sampler_seed, drawn]).generate_state(1)[0])
        if options.sampler != "tpe":
            return optuna.samplers.RandomSampler(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # the liar counts points of running trials as bad, so that processes do not all try the same region
            return optuna.samplers.TPESampler(
                n_startup_trials=options.startup_trials, seed=seed, multivariate=True, constant_liar=True
            )

    def _is_torn(self, trial: FrozenTrial) -> bool:
        """Whether its process died while its point was drawn; nothing of it is kept, and the point is drawn again."""
        return trial_state(trial) in RETRIED and len(trial.params) < len(self._distributions)

    def _recover(self) -> None:
        """Queue the points of running trials that have no process any more."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self._locks.held_by_another(trial.number):
                self._requeue(trial.number)

    def _requeue(self, number: int) -> None:
        trials = {trial.number: trial for trial in self._study.get_trials(deepcopy=False)}
        point: dict[str, Any] = {}
        deaths, earlier = 0, number  # type: int, int | None
        while earlier is not None:
            trial = trials[earlier]
            deaths += "interrupted" not in trial.user_attrs
            point = trial.params  # in the end, of the first trial of the point; a retry may have died before it had any
            earlier = trial.user_attrs.get("retry_of")
        retried = any(other.user_attrs.get("retry_of") == number for other in trials.values())
        if deaths >= MAX_DEATHS:
            study_id = self._storage.get_study_id_from_name(STUDY_NAME)
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
            self._storage.set_trial_user_attr(trial_id, "error", f"its process died {deaths} times")
        elif len(point) == len(self._distributions) and not retried:
            self._study.enqueue_trial(point, user_attrs={"retry_of": number})
        self._study.tell(number, state=TrialState.FAIL)  # last: a process that dies before this is recovered again


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices:
        return CategoricalDistribution(dimension.categories())
    low, high, step = dimension.low, dimension.high, dimension.step
    assert low is not None and high is not None
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, dimension.log, int(step or 1))
    return FloatDistribution(low, high, dimension.log, step)


def _difference(stored: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> str:
    """The first value that is not what it was."""
    for table in now:
        for key in sorted({*stored[table], *now[table]}):
            old, new = (side[table].get(key, "nothing") for side in (stored, now))
            if old != new:
                return f"[{table}] {key} = {old}, now it is {new}"
    return "another plan"

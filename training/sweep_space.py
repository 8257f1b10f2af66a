"""The TOML file of a sweep: fixed settings, the space that is searched, and how. Loads neither torch nor Optuna."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import SpikerlError, unknown
from training.setting_sources import ENVIRONMENT_PREFIX, recipe_path
from training.setting_values import coerce
from training.settings import Settings, completed, from_sources
from training.sweep_dimension import KINDS, MACHINE, Dimension, check_names, read_dimension

OBJECTIVES = {
    "best": "best mean return",
    "final": "final mean return",
    "last10": "mean of the last ten mean returns",
}
SAMPLERS = ("grid", "random", "tpe")
PRUNERS = ("median", "none")
TABLES = ("settings", "space", "study")


@dataclass(frozen=True)
class StudyOptions:
    """The table [study].

    Attributes:
        trials: trials in total, over all processes and all times the sweep is continued.
        objective: what of a run is maximised, a key of OBJECTIVES.
        seeds: training seeds; a trial's value is the mean of the objective over them.
        sampler, sampler_seed: how points are drawn.
        pruner: `median` ends a trial that is worse than the median of the complete ones at the same step.
        startup_trials: trials before TPE and the median pruner begin to judge.
    """

    trials: int = 20
    objective: str = "best"
    seeds: tuple[int, ...] = (0,)
    sampler: str = "tpe"
    sampler_seed: int = 0
    pruner: str = "none"
    startup_trials: int = 10

    def __post_init__(self) -> None:
        for name in ("trials", "startup_trials"):
            _require_integer(name, getattr(self, name), 1)
        _require_integer("sampler_seed", self.sampler_seed, 0)
        if (
            not isinstance(self.seeds, list | tuple)
            or not self.seeds
            or len(set(map(str, self.seeds))) < len(self.seeds)
        ):
            raise SpikerlError(f"[study] seeds = {self.seeds!r} is not a list of different seeds", "seeds = [0, 1, 2]")
        for seed in self.seeds:
            _require_integer("seeds", seed, 0)
        object.__setattr__(self, "seeds", tuple(self.seeds))
        for name, known in (("objective", tuple(OBJECTIVES)), ("sampler", SAMPLERS), ("pruner", PRUNERS)):
            if getattr(self, name) not in known:
                raise unknown(f"[study] {name}", str(getattr(self, name)), known, f"{name} = '{known[0]}'")


@dataclass(frozen=True)
class SweepPlan:
    """All that decides a sweep.

    Attributes:
        name: stem of the space file.
        text: the space file as it stands.
        settings: what all trials share; searched settings hold a value of no meaning.
    """

    name: str
    text: str
    settings: Settings
    dimensions: tuple[Dimension, ...]
    options: StudyOptions

    @property
    def trials(self) -> int:
        """Trials in total: those asked for, or all points of a grid that has fewer."""
        if self.options.sampler != "grid":
            return self.options.trials
        return min(self.options.trials, math.prod(len(dimension.grid()) for dimension in self.dimensions))

    def grid_point(self, index: int) -> dict[str, Any]:
        """The point of a grid by its number; the last dimension changes fastest."""
        point = {}
        for dimension in reversed(self.dimensions):
            values = dimension.grid()
            index, position = divmod(index, len(values))
            point[dimension.name] = values[position]
        return point

    def trial_settings(self, params: Mapping[str, Any], seed: int) -> Settings:
        """Settings of one run of a trial.

        Raises:
            SpikerlError: values that are each allowed contradict each other.
        """
        return replace(self.settings, **params, seed=seed)

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A point with sequences as lists, also one whose values contradict each other."""
        point = {name: coerce(name, KINDS[name], value) for name, value in params.items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in point.items()}

    def fixed_toml(self) -> str:
        """What all trials share, as a config of `spikerl train`."""
        left_out = {"seed", *(dimension.name for dimension in self.dimensions)}
        lines = self.settings.to_toml().splitlines(keepends=True)
        return "".join(line for line in lines if line.partition(" = ")[0] not in left_out)

    def identity(self) -> dict[str, dict[str, Any]]:
        """What must stay the same for a sweep to go on, as JSON has it; `trials` and the machine may change."""
        left_out = {"seed", *MACHINE, *(dimension.name for dimension in self.dimensions)}
        document = {
            "settings": {name: value for name, value in asdict(self.settings).items() if name not in left_out},
            "space": {dimension.name: dimension.document() for dimension in self.dimensions},
            "study": {name: value for name, value in asdict(self.options).items() if name != "trials"},
        }
        plain: dict[str, dict[str, Any]] = json.loads(json.dumps(document))
        return plain

    def stored_identity(self, stored: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The identity that a sweep keeps, with the defaults of settings that came to be after it was begun."""
        new = self.identity()["settings"].keys() - stored["space"].keys()
        settings = {name: value for name, value in completed({}).items() if name in new}
        return {**stored, "settings": settings | stored["settings"]}


def load_plan(
    path: Path,
    environment: Mapping[str, str] | None = None,
    assignments: list[str] | None = None,
    flags: Mapping[str, Any] | None = None,
    recipe: str | None = None,
    trials: int | None = None,
) -> SweepPlan:
    """Read a space file; fixed settings come from flags over assignments over environment over the file over a recipe.

    Raises:
        SpikerlError: an unknown key, a value of the wrong type or range, an unreadable file, a setting both fixed and
            searched.
    """
    text, document = _read(path)
    fixed, space, study = (document.get(table, {}) for table in TABLES)
    flags = {name: value for name, value in (flags or {}).items() if value is not None}
    above = {
        key.removeprefix(ENVIRONMENT_PREFIX).lower() for key in environment or {} if key.startswith(ENVIRONMENT_PREFIX)
    }
    above |= {assignment.partition("=")[0].strip() for assignment in assignments or []}
    for table, names in (("settings", fixed), ("space", space)):
        check_names(f"setting in [{table}] of '{path}'", names, KINDS, "spikerl train --list-settings")
    check_names(f"key in [study] of '{path}'", study, [item.name for item in fields(StudyOptions)])
    for name in (*fixed, *above, *flags):
        if name in space:
            raise SpikerlError(
                f"setting '{name}' is both fixed and searched", f"take {name} out of [space], or unset it"
            )
        if name in ("seed", "seeds"):
            raise SpikerlError(f"'{name}' is no fixed setting of a sweep", "list the training seeds in [study] seeds")
    below = {name: value for name, value in fixed.items() if name not in above}
    source = recipe_path(recipe) if recipe is not None else None
    base = from_sources(source, environment, assignments, below | flags)
    if not space:
        raise SpikerlError(
            f"'{path}' searches nothing: [space] is empty", "for example actor_lr = {low = 1e-5, high = 1e-3}"
        )
    # in order of name, so that the order of the file decides nothing
    dimensions = tuple(read_dimension(name, entry, base) for name, entry in sorted(space.items()))
    options = StudyOptions(**study | ({} if trials is None else {"trials": trials}))
    plan = SweepPlan(path.stem, text, replace(base, seed=options.seeds[0]), dimensions, options)
    if options.sampler == "grid" and trials is None and "trials" not in study:
        size = math.prod(len(dimension.grid()) for dimension in dimensions)
        plan = replace(plan, options=replace(options, trials=size))
    assert plan.trials > 0  # also refuses a grid that cannot be enumerated
    return plan


def _read(path: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise SpikerlError(f"cannot read space '{path}': {error.strerror}", "give a TOML file with [space]") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpikerlError(f"space '{path}' is not TOML: {error}", "see docs/sweep.md for one") from error
    check_names(f"table in '{path}'", document, TABLES)
    for name, table in document.items():
        if not isinstance(table, dict):
            raise SpikerlError(f"{name} = {table!r} in '{path}' is no table", f"write [{name}], its keys below it")
    return text, document


def _require_integer(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**32:
        raise SpikerlError(f"[study] {name} = {value!r} is not an integer from {least} to 2^32 - 1", f"mend {name}")

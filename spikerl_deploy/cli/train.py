"""`spikerl train`: train a policy into a run folder."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikerl_deploy.cli.common import (
    ForceOption,
    Format,
    FormatOption,
    Verbosity,
    complete_environment,
    console,
    one_thread_for_numpy,
    print_json,
    say,
)
from spikerl_deploy.errors import SpikerlError

if TYPE_CHECKING:
    from training.settings import Settings


def train(
    env: Annotated[
        str | None, typer.Option(help="Gymnasium MuJoCo environment id.", autocompletion=complete_environment)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Environment steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/ENV-seedSEED by default.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Settings that ship with spikerl, by task name.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting; repeatable.")
    ] = None,
    stop_return: Annotated[
        float | None, typer.Option(help="Stop once an evaluation's mean return reaches this.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Independent seeds, from --seed on, trained in one process.")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="spiking, or mlp: the dense baseline without spikes.")] = None,
    num_envs: Annotated[int | None, typer.Option(help="Environments side by side, on each rank.")] = None,
    ranks: Annotated[int, typer.Option(help="Processes that train one policy together on this machine.")] = 1,
    dist_backend: Annotated[str | None, typer.Option(help="auto, nccl, gloo or mpi.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run; --steps, --stop-return and --set threads=N may change.")
    ] = None,
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the update; else where it pays.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    bf16: Annotated[bool | None, typer.Option("--bf16/--no-bf16", help="BF16 autocast of the actor.")] = None,
    force: ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings and write nothing.")] = False,
    list_settings: Annotated[bool, typer.Option("--list-settings", help="List every setting and its default.")] = False,
    output: FormatOption = Format.human,
) -> None:
    """Train a policy with TD3: a spiking one, or its dense baseline.

    Settings: flags over --set over SPIKERL_TRAIN_* variables over --config over --recipe over defaults.
    """
    from training.settings import describe_settings

    if list_settings:
        _list(describe_settings(), output)
        return
    one_thread_for_numpy()
    flags = {
        "env": env, "steps": steps, "seed": seed, "stop_return": stop_return, "device": device, "bf16": bf16,
        "seeds": seeds, "actor": actor, "num_envs": num_envs, "dist_backend": dist_backend,
        "compile": None if compiled is None else "on" if compiled else "off",
    }  # fmt: skip
    if resume is not None:
        others = {"config": config, "recipe": recipe, "out": out, "force": force or None}
        settings, ranks = _resumed(resume, flags, assignments, others, ranks)
        folder = resume
    else:
        settings = _new(config, recipe, assignments, flags)
        folder = out if out is not None else Path("runs") / _default_name(settings)
    if dry_run:
        _plan(settings.to_toml(), folder, output)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads))  # before torch reads it
    from training.distributed import find_place

    place = find_place(os.environ)
    if place.size > 1 and (ranks > 1 or resume is not None):
        if place.size != ranks:
            what = f"'{resume}' was trained with {ranks} ranks" if resume is not None else f"--ranks {ranks}"
            hint = f"start {ranks}" if resume is not None else "leave --ranks out"
            raise SpikerlError(f"{what}, {place.launcher} started {place.size}", hint)
    elif ranks != 1:
        from training.launch import launch_ranks
        from training.run_folder import check_run_folder

        if resume is None:
            check_run_folder(folder, force)  # rank 0 would find it out, seconds later
        raise typer.Exit(launch_ranks(ranks, sys.argv[1:]))
    from training.launch import end_with_launcher
    from training.trainer import Trainer

    end_with_launcher(os.environ)
    result = Trainer(settings, folder, force, Verbosity.quiet, resume=resume is not None, place=place).run()
    if place.rank > 0:
        raise typer.Exit(130 if result.stopped == "interrupted" else 0)
    document = {"schema": "spikerl.train/1", "run": str(folder), "env": settings.env, "seed": settings.seed}
    document |= result.document()
    if output is Format.json:
        print_json(document)
    else:
        several = f", mean of {settings.seeds} seeds" if settings.seeds > 1 else ""
        returns = "no evaluation yet"
        if math.isfinite(result.final_return):
            returns = f"best mean return {result.best_return:.1f} over {settings.eval_episodes} evaluation episodes, "
            returns += f"final {result.final_return:.1f}"
        console().print(
            f"{settings.env}{several}: {returns}; {result.steps} steps in {result.seconds:.0f} s ({result.stopped}); "
            f"run folder {folder}",
            soft_wrap=True,
        )
    if result.stopped == "interrupted":
        raise typer.Exit(130)
    run = folder if settings.seeds == 1 else folder / f"seed-{settings.seed}"
    if settings.undeployable is None:
        say(f"next: spikerl export {run} --to nir --bits 8 -o policy.nir")
    else:
        say(f"{settings.undeployable}; its learning curve: spikerl report {folder} -o report")


def _new(config: Path | None, recipe: str | None, assignments: list[str] | None, flags: dict[str, Any]) -> Settings:
    """Settings of a new run, from all their sources."""
    from training.setting_sources import recipe_path
    from training.settings import from_sources

    if config is not None and recipe is not None:
        raise SpikerlError("--config and --recipe exclude each other", "start from one, change it with --set")
    source = recipe_path(recipe) if recipe is not None else config
    return from_sources(source, os.environ, assignments, flags)


def _resumed(
    run: Path, flags: dict[str, Any], assignments: list[str] | None, others: dict[str, Any], ranks: int
) -> tuple[Settings, int]:
    """Settings of a run to go on with, and its number of ranks.

    Only its end may change, and the threads it takes; what is given as it was is no change.
    """
    from dataclasses import asdict, replace

    from training.resume import read_settings
    from training.setting_sources import layered

    settings, saved_ranks = read_settings(run)
    wanted = replace(settings, **layered(asdict(settings), None, None, assignments, flags))
    given = [name for name, value in others.items() if value is not None]
    given += [name for name, value in asdict(wanted).items() if value != getattr(settings, name)]
    for name in given:
        if name not in ("steps", "stop_return", "threads"):
            option = name.replace("_", "-") if name in others or flags.get(name) is not None else f"set {name}"
            raise SpikerlError(
                f"--{option} cannot change when a run goes on", "only --steps, --stop-return and --set threads=N can"
            )
    if ranks not in (1, saved_ranks):
        raise SpikerlError(f"--ranks {ranks}, but '{run}' was trained with {saved_ranks}", f"use --ranks {saved_ranks}")
    return wanted, saved_ranks


def _default_name(settings: Settings) -> str:
    seeds = settings.all_seeds
    return f"{settings.env}-seed{seeds[0]}" + (f"-{seeds[-1]}" if len(seeds) > 1 else "")


def _list(settings: list[dict[str, Any]], output: Format) -> None:
    if output is Format.json:
        print_json({"schema": "spikerl.settings/1", "settings": settings})
        return
    from rich.table import Table

    table = Table("setting", "default", "what it is", box=None, header_style="bold")
    for item in settings:
        choices = f" ({', '.join(item['choices'])})" if item["choices"] else ""
        table.add_row(item["name"], str(item["default"]), item["doc"] + choices)
    console().print(table)


def _plan(toml: str, folder: Path, output: Format) -> None:
    if output is Format.json:
        import tomllib

        print_json({"schema": "spikerl.train-plan/1", "run": str(folder), "settings": tomllib.loads(toml)})
        return
    console().print(f"# would train into {folder} with\n{toml}", end="", soft_wrap=True)

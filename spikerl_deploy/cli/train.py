"""`spikerl train`: train a spiking policy into a run folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from spikerl_deploy.cli.common import (
    ForceOption,
    Format,
    FormatOption,
    Verbosity,
    complete_environment,
    console,
    print_json,
    say,
)
from spikerl_deploy.errors import SpikerlError


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
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    bf16: Annotated[bool | None, typer.Option("--bf16/--no-bf16", help="BF16 autocast of the actor.")] = None,
    force: ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings and write nothing.")] = False,
    list_settings: Annotated[bool, typer.Option("--list-settings", help="List every setting and its default.")] = False,
    output: FormatOption = Format.human,
) -> None:
    """Train a spiking policy with TD3.

    Settings: flags over --set over SPIKERL_TRAIN_* variables over --config over --recipe over defaults.
    """
    from training.settings import describe_settings, from_sources, recipe_path

    if list_settings:
        _list(describe_settings(), output)
        return
    if config is not None and recipe is not None:
        raise SpikerlError("--config and --recipe exclude each other", "start from one, change it with --set")
    flags = {
        "env": env, "steps": steps, "seed": seed, "stop_return": stop_return, "device": device, "bf16": bf16
    }  # fmt: skip
    source = recipe_path(recipe) if recipe is not None else config
    settings = from_sources(source, os.environ, assignments, flags)
    folder = out if out is not None else Path("runs") / f"{settings.env}-seed{settings.seed}"
    if dry_run:
        _plan(settings.to_toml(), folder, output)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads))  # before torch reads it
    from training.trainer import Trainer

    result = Trainer(settings, folder, force, Verbosity.quiet).run()
    document = {"schema": "spikerl.train/1", "run": str(folder), "env": settings.env, "seed": settings.seed}
    document |= result.document()
    if output is Format.json:
        print_json(document)
    else:
        console().print(
            f"{settings.env}: best mean return {result.best_return:.1f} over {settings.eval_episodes} evaluation "
            f"episodes, final {result.final_return:.1f}; {result.steps} steps in {result.seconds:.0f} s "
            f"({result.stopped}); run folder {folder}",
            soft_wrap=True,
        )
    if result.stopped == "interrupted":
        raise typer.Exit(130)
    say(f"next: spikerl export {folder} --to nir --bits 8 -o policy.nir")


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
    console().print(f"# would train into {folder} with\n{toml}", end="", soft_wrap=True, markup=False)

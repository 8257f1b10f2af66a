"""`spikerl import`: policies and cores that other frameworks trained, as policy files of ours."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikerl_deploy.cli.common import (
    ForceOption,
    Format,
    FormatOption,
    complete_environment,
    console,
    print_json,
    say,
)
from spikerl_deploy.errors import SpikerlError

if TYPE_CHECKING:
    from spikerl_deploy.policy import Policy

app = typer.Typer(help="Import policies that other frameworks trained.", no_args_is_help=True)


class Coding(StrEnum):
    """How the population encoder makes spikes."""

    regular = "regular"
    poisson = "poisson"


def _complete_maker(incomplete: str) -> list[str]:
    from exporters.importers.foreign_nir import MAKERS

    return [name for name in MAKERS if name.startswith(incomplete)]


def _positive(value: float | None) -> float | None:
    """What a policy can hold as a threshold, a bound or a time step; the error gets the option and its value."""
    from spikerl_deploy.policy import SCALAR_MAX, SCALAR_MIN, is_positive_scalar

    if value is not None and not is_positive_scalar(value):
        raise typer.BadParameter(f"not positive and finite, {SCALAR_MIN:.3g} to {SCALAR_MAX:.3g}")
    return value


DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Read and check, but write nothing.")]
StepsOption = Annotated[int, typer.Option(min=1, help="T, time steps a control step.")]
GraphArgument = Annotated[Path, typer.Argument(help="NIR file of a feed-forward spiking network.")]
CoreOption = Annotated[Path, typer.Option("-o", "--out", help="Output file.")]
DtOption = Annotated[
    float | None,
    typer.Option(
        help="Seconds a time step; by default what the file states, else what its maker takes.", callback=_positive
    ),
]


@app.command("popsan", short_help="Import a checkpoint of PopSAN or SpikeRL as a policy.")
def import_popsan(
    model: Annotated[Path, typer.Argument(help="State dict of a PopSAN or SpikeRL actor (.pt).")],
    env: Annotated[
        str, typer.Option(help="Gymnasium id that the policy acts in.", autocompletion=complete_environment)
    ],
    stats: Annotated[Path | None, typer.Option(help="Mean and variance of the observations, pickled.")] = None,
    unnormalised: Annotated[bool, typer.Option("--unnormalised", help="Trained on raw observations.")] = False,
    out: Annotated[Path, typer.Option("-o", "--out", help="Output file.")] = Path("policy.nir"),
    time_steps: StepsOption = 5,
    current_decay: Annotated[float, typer.Option(help="Share of the current kept each time step.")] = 0.5,
    voltage_decay: Annotated[float, typer.Option(help="Share of the voltage kept each time step.")] = 0.75,
    v_threshold: Annotated[float, typer.Option(help="Firing threshold.", callback=_positive)] = 0.5,
    encoder_threshold: Annotated[
        float, typer.Option(help="Threshold of the encoder's regular coding.", callback=_positive)
    ] = 0.999,
    coding: Annotated[Coding, typer.Option(help="How the encoder makes spikes.")] = Coding.regular,
    clip: Annotated[float, typer.Option(help="Bound of the normalised observation.", callback=_positive)] = 3.0,
    epsilon: Annotated[
        float | None, typer.Option(help="Added to the variance; by default float32's 1.19e-7, as PopSAN adds.")
    ] = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    output: FormatOption = Format.human,
) -> None:
    """Import a checkpoint of PopSAN or SpikeRL as a whole policy: encoder, core, decoder, normalisation."""
    from exporters.importers.popsan import VARIANCE_EPSILON, PopsanConstants
    from exporters.importers.popsan import import_popsan as read
    from spikerl_deploy.environments import spec_of

    if (stats is None) != unnormalised:
        raise SpikerlError(
            "--stats and --unnormalised were both given" if unnormalised else "the statistics are missing",
            "give --stats MEAN_VAR.p that training wrote, or --unnormalised for a policy of raw observations",
        )
    _check_target(out, force, dry_run)
    spec = spec_of(env)
    constants = PopsanConstants(
        time_steps, current_decay, voltage_decay, v_threshold, coding.value, encoder_threshold, clip,
        VARIANCE_EPSILON if epsilon is None else epsilon,
    )  # fmt: skip
    policy, notes = read(model, stats, env, spec, constants)
    made_from = {"model": model} | ({"stats": stats} if stats is not None else {})
    _finish(policy, notes, made_from, out, force, dry_run, output)


@app.command("nir")
def import_nir(
    graph: GraphArgument,
    out: CoreOption = Path("core.nir"),
    made_by: Annotated[
        str, typer.Option(help="Framework that wrote it, where NIR leaves room.", autocompletion=_complete_maker)
    ] = "nir",
    dt: DtOption = None,
    time_steps: StepsOption = 5,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    output: FormatOption = Format.human,
) -> None:
    """Import a NIR file as a core that runs on every backend."""
    _import_core(graph, made_by, out, dt, time_steps, force, dry_run, output)


@app.command("snntorch", short_help="Import a NIR file that snnTorch wrote.")
def import_snntorch(
    graph: GraphArgument,
    out: CoreOption = Path("core.nir"),
    dt: DtOption = None,
    time_steps: StepsOption = 5,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    output: FormatOption = Format.human,
) -> None:
    """Import a NIR file that snnTorch wrote; the same as `import nir --made-by snntorch`."""
    _import_core(graph, "snntorch", out, dt, time_steps, force, dry_run, output)


def _import_core(
    graph: Path, made_by: str, out: Path, dt: float | None, time_steps: int, force: bool, dry_run: bool, output: Format
) -> None:
    from exporters.importers.foreign_nir import import_nir as read

    _check_target(out, force, dry_run)
    policy, notes = read(graph, made_by, dt, time_steps)
    _finish(policy, notes, {"graph": graph}, out, force, dry_run, output)


def _check_target(out: Path, force: bool, dry_run: bool) -> None:
    from spikerl_deploy.files import refuse_overwrite

    if not dry_run:
        refuse_overwrite(out, force)


def _finish(
    policy: Policy,
    notes: tuple[str, ...],
    made_from: dict[str, Path],
    out: Path,
    force: bool,
    dry_run: bool,
    output: Format,
) -> None:
    """Write the policy file with its provenance, and say what it is."""
    from spikerl_deploy.files import sha256_file
    from spikerl_deploy.manifest import build_manifest
    from spikerl_deploy.policy_file import save_policy

    policy = replace(policy, provenance=build_manifest(made_from=made_from) | {"notes": list(notes)})
    document: dict[str, Any] = {
        "schema": "spikerl.import/1",
        "file": None if dry_run else str(out),
        "env": policy.env_id,
        "sizes": list(policy.sizes),
        "time_steps": policy.time_steps,
        "dt_s": policy.dt,
        "layers": [
            {"current_decay": i.current_decay, "voltage_decay": i.voltage_decay, "v_threshold": i.v_threshold}
            for i in policy.layers
        ],
        "made_from": policy.provenance["made_from"],
        "notes": list(notes),
    }
    if not dry_run:
        save_policy(policy, out, force)
        document |= {"bytes": out.stat().st_size, "sha256": sha256_file(out)}
    for note in notes:
        say(f"note: {note}")
    if output is Format.json:
        print_json(document)
    else:
        where = f"{out} ({document['bytes']} bytes)" if not dry_run else "nothing written (dry run)"
        sizes = "-".join(map(str, policy.sizes))
        kind = f"policy for {policy.env_id}" if policy.env_id else f"core, dt {policy.dt:g} s"
        console().print(f"{sizes}, {kind}, T {policy.time_steps}: {where}", soft_wrap=True)
    if not dry_run:
        say(f"next: spikerl export {out} --bits 8 -o {out.with_name(out.stem + '-8bit.nir')}")

"""`spikerl fit`: whether a policy fits a chip, limit by limit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikerl_deploy.cli.common import (
    SOURCE_HINT,
    Format,
    FormatOption,
    OptionalSourceArgument,
    console,
    print_json,
    read_source,
)
from spikerl_deploy.errors import CheckFailed, SpikerlError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spikerl_deploy.chips import Chip, Source
    from spikerl_deploy.fit import Check, FitReport

LIST_HINT = "spikerl fit --list"
CHIP_FILE_HINT = "docs/fit.md has the schema of [NAME.limits]"
WORD = {True: "fits", False: "exceeds", None: "not checked"}


def _complete_chip(incomplete: str) -> list[str]:
    from spikerl_deploy.chips import load_chips

    return [name for name in load_chips() if name.startswith(incomplete)]


def fit(
    source: OptionalSourceArgument = None,
    chip: Annotated[
        str | None, typer.Option("--chip", help="Chip to check against.", autocompletion=_complete_chip)
    ] = None,
    chip_file: Annotated[Path | None, typer.Option(help="TOML file with chips of your own.")] = None,
    list_chips: Annotated[bool, typer.Option("--list", help="List the chips and the sources of their limits.")] = False,
    output: FormatOption = Format.human,
) -> None:
    """Check whether a policy fits a chip: neurons, cores, memory, axons, weights, neuron model. Exit 1 if not."""
    from spikerl_deploy.chips import load_chips

    chips = load_chips(chip_file)
    if list_chips:
        _list({name: each for name, each in chips.items() if each.limits}, output)
        return
    if chip is None:
        raise SpikerlError("no chip was named", f"--chip NAME, one of: {', '.join(sorted(chips))}")
    if chip not in chips:
        raise unknown("chip", chip, chips, LIST_HINT)
    if not chips[chip].limits:
        raise SpikerlError(f"chip '{chip}' of '{chip_file}' states energy alone, no limits to check", CHIP_FILE_HINT)
    if source is None:
        raise SpikerlError("no policy was given", SOURCE_HINT)
    from spikerl_deploy.fit import check_fit

    policy, origin = read_source(source)
    report = check_fit(policy, chips[chip])
    if output is Format.json:
        print_json(_document(report, origin, policy.sizes))
    else:
        _print(report, origin, policy.sizes)
    worst = report.worst
    if worst is not None:
        only_floats = [check.name for check in report.checks if check.fits is False] == ["weight_bits"]
        hint = f"spikerl quantize {source} --bits 8 -o policy-8bit.nir" if only_floats else LIST_HINT
        raise CheckFailed(
            f"'{origin}' does not fit {report.chip.title}: {worst.requirement} {_figure(worst.needed)}, "
            f"the chip has {_figure(worst.limit)}",
            hint,
        )


def _document(report: FitReport, origin: Path, sizes: tuple[int, ...]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "schema": "spikerl.fit/1",
        "file": str(origin),
        "sizes": list(sizes),
        "quantized": report.quantized,
        "chip": report.chip.name,
        "title": report.chip.title,
        "fits": report.fits,
        "worst": None if report.worst is None else report.worst.name,
        "checks": [asdict(check) | {"status": WORD[check.fits]} for check in report.checks],
        "cores": [asdict(core) for core in report.cores],
        "synapse_bits": report.synapse_bits,
    }


def _print(report: FitReport, origin: Path, sizes: tuple[int, ...]) -> None:
    from rich.table import Table

    out = console()
    kind = "integers" if report.quantized else "float32, counted at the chip's weight width"
    out.print(f"{origin}: {'-'.join(map(str, sizes))}, {kind}, on {report.chip.title}", soft_wrap=True)
    table = Table("requirement", "needed", "limit", "", "source")
    for check in report.checks:
        if check.fits is not None:
            table.add_row(*_row(check), "" if check.source is None else check.source.name)
    out.print(table)
    for check in report.checks:
        if check.fits is not None and check.note:
            out.print(f"{check.requirement}: {check.note}", soft_wrap=True)
    for number, core in enumerate(report.cores, start=1):
        layers = ", ".join(f"{neurons} of layer {layer + 1}" for layer, neurons in core.slices)
        always_on = f", {core.always_on} always firing" if core.always_on else ""
        out.print(f"core {number}: {layers}{always_on}; {core.synapse_bits:,} synapse bits", soft_wrap=True)
    for check in report.checks:
        if check.limit is not None and check.fits is None:
            out.print(f"not checked: {check.requirement} ({check.note})", soft_wrap=True)
    absent = [check.requirement for check in report.checks if check.limit is None]
    if absent:
        out.print(f"not checked, no published limit: {', '.join(absent)}", soft_wrap=True)
    if report.fits:
        out.print(f"fits every published limit of {report.chip.title} that was checked", soft_wrap=True)


def _row(check: Check) -> tuple[str, str, str, str]:
    verdict = "differs" if check.fits is False else "fits"
    if check.margin is not None:
        verdict = f"{check.margin:,} left" if check.fits else f"exceeds by {-check.margin:,}"
    requirement = check.requirement + (f", {check.unit}" if check.unit not in check.requirement else "")
    return requirement, _figure(check.needed), _figure(check.limit), verdict


def _figure(value: int | str | None) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _list(chips: Mapping[str, Chip], output: Format) -> None:
    if output is Format.json:
        from dataclasses import asdict

        print_json({"schema": "spikerl.chips/1", "chips": [asdict(chip) for chip in chips.values()]})
        return
    out = console()
    for name, chip in chips.items():
        out.print(f"{name}: {chip.title}", soft_wrap=True)
        by_source: dict[Source, list[str]] = {}
        for key, limit in chip.limits.items():
            by_source.setdefault(limit.source, []).append(key)
        for source, keys in by_source.items():
            url = f", {source.url}" if source.url else ""
            out.print(f"  {', '.join(keys)}: {source.name} ({source.kind}){url}", soft_wrap=True)

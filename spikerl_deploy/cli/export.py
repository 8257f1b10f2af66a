"""`spikerl export`: turn a run, a checkpoint or a policy file into a deployable file."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from spikerl_deploy.cli.common import (
    ForceOption,
    Format,
    FormatOption,
    SourceArgument,
    TrainedOption,
    console,
    print_json,
    read_source,
    say,
)
from spikerl_deploy.cli.layer_table import print_layers
from spikerl_deploy.errors import SpikerlError

WELL_ROUNDED_BITS = 8  # at fewer, rounding alone may cost reward


def complete_format(incomplete: str) -> list[str]:
    """Shell completion of export formats."""
    from exporters.registry import exporter_names

    return [name for name in exporter_names() if name.startswith(incomplete)]


def export(
    source: SourceArgument,
    to: Annotated[
        str,
        typer.Option("--to", help="Output format: nir, onnx, netx, json, c-header.", autocompletion=complete_format),
    ] = "nir",
    bits: Annotated[
        int | None,
        typer.Option(
            help="Round weights to so many bits, 2 to 8; without it they are exported as they are. "
            "Below 8, spikerl quantize does better."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Output file; policy.nir and so on by default.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the format, such as opset=17; repeatable."),
    ] = None,
    trained: TrainedOption = True,
    force: ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Quantize and report, but write nothing.")] = False,
    output: FormatOption = Format.human,
) -> None:
    """Quantize a policy and write it as one file that carries all it needs to run."""
    import tempfile

    from exporters.grid import Grid
    from exporters.quantize import quantize
    from exporters.registry import default_file, exporter, parse_options
    from spikerl_deploy.files import refuse_overwrite, sha256_file
    from spikerl_deploy.manifest import build_manifest

    write = exporter(to)
    options = parse_options(to, write, settings or [])
    if bits is not None:
        Grid(bits)  # refuses what is out of range
    target = out if out is not None else Path(default_file(to))
    if not dry_run:
        refuse_overwrite(target, force)
    policy, origin = read_source(source)
    reports: tuple[Any, ...] = ()
    if bits is not None and policy.integers is not None:
        raise SpikerlError(
            f"'{origin}' holds {policy.bits}-bit integers; --bits {bits} would round its trained weights anew",
            "leave --bits out to export the integers; for other bits: spikerl quantize, or export the run",
        )
    if bits is not None:
        policy, reports = quantize(policy, bits)
    if not trained:
        policy = replace(policy, trained=None, trained_encoder=None)
    provenance = build_manifest(made_from={"source": origin}) | {"origin": policy.provenance or None}
    policy = replace(policy, provenance=provenance)
    document: dict[str, Any] = {
        "schema": "spikerl.export/2",
        "source": str(origin),
        "file": None if dry_run else str(target),
        "format": to,
        "env": policy.env_id,
        "sizes": list(policy.sizes),
        "bits": policy.bits,
        "layers": [asdict(report) for report in reports],
    }
    if dry_run:
        with tempfile.TemporaryDirectory() as folder:  # whether the format can hold it
            write(policy, Path(folder) / target.name, False, **options)
    else:
        write(policy, target, force, **options)
        document |= {"bytes": target.stat().st_size, "sha256": sha256_file(target)}
    if output is Format.json:
        print_json(document)
    else:
        print_written(document)
        if document["layers"]:
            print_layers(document["layers"])
    if bits is not None and bits < WELL_ROUNDED_BITS:
        say(f"rounding alone may cost reward at {bits} bits; by recorded data: "
            f"spikerl quantize {source} --bits {bits} -o policy-{bits}bit.nir")  # fmt: skip
    if not dry_run and to == "nir" and policy.closed_loop_ready:
        say(f"next: spikerl simulate {target} --backend {'lava' if policy.integers else 'torch'}"
            f"{' --compare torch' if policy.trained else ''} -o report")  # fmt: skip


def print_written(document: dict[str, Any]) -> None:
    """Print which file was written, and what it holds."""
    kind = f"{document['bits']}-bit integers" if document["bits"] else "float32"
    sizes = "-".join(map(str, document["sizes"]))
    where = f"{document['file']} ({document['bytes']} bytes)" if document["file"] else "nothing written (dry run)"
    console().print(f"{sizes}, {kind}: {where}", soft_wrap=True)

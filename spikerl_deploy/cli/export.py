"""`spikerl export`: turn a run, a checkpoint or a policy file into a deployable file."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from spikerl_deploy.cli.common import ForceOption, Format, FormatOption, console, print_json, read_source, say


def _complete_format(incomplete: str) -> list[str]:
    from exporters.registry import exporter_names

    return [name for name in exporter_names() if name.startswith(incomplete)]


def export(
    source: Annotated[Path, typer.Argument(help="Run folder, checkpoint (.pt) or policy file (.nir).")],
    to: Annotated[str, typer.Option("--to", help="Output format.", autocompletion=_complete_format)] = "nir",
    bits: Annotated[
        int | None, typer.Option(help="Quantize weights to so many bits, 2 to 8; without it the floats are exported.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Output file; policy.nir by default.")] = None,
    trained: Annotated[
        bool, typer.Option("--trained/--no-trained", help="Carry the float weights along, as comparison's baseline.")
    ] = True,
    force: ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Quantize and report, but write nothing.")] = False,
    output: FormatOption = Format.human,
) -> None:
    """Quantize a policy and write it as one file that carries all it needs to run."""
    from exporters.quantize import quantize
    from exporters.registry import exporter
    from spikerl_deploy.files import refuse_overwrite, sha256_file
    from spikerl_deploy.manifest import build_manifest

    write = exporter(to)
    target = out if out is not None else Path(f"policy.{to}")
    if not dry_run:
        refuse_overwrite(target, force)
    policy, origin = read_source(source)
    reports: tuple[Any, ...] = ()
    if bits is not None:
        policy, reports = quantize(policy, bits)
    if not trained:
        policy = replace(policy, trained=None)
    provenance = build_manifest(made_from={"source": origin}) | {"origin": policy.provenance or None}
    policy = replace(policy, provenance=provenance)
    document: dict[str, Any] = {
        "schema": "spikerl.export/1",
        "source": str(origin),
        "file": None if dry_run else str(target),
        "format": to,
        "env": policy.env_id,
        "sizes": list(policy.sizes),
        "bits": policy.bits,
        "layers": [asdict(report) for report in reports],
    }
    if not dry_run:
        write(policy, target, force)
        document |= {"bytes": target.stat().st_size, "sha256": sha256_file(target)}
    if output is Format.json:
        print_json(document)
    else:
        _print(document)
    if not dry_run:
        say(f"next: spikerl simulate {target} --backend lava --compare torch -o report")


def _print(document: dict[str, Any]) -> None:
    from rich.table import Table

    out = console()
    kind = f"{document['bits']}-bit integers" if document["bits"] else "float32"
    sizes = "-".join(map(str, document["sizes"]))
    where = f"{document['file']} ({document['bytes']} bytes)" if document["file"] else "nothing written (dry run)"
    out.print(f"{sizes}, {kind}: {where}", soft_wrap=True)
    if not document["layers"]:
        return
    table = Table("layer", "weight unit", "threshold", "clipped", "rms error", "|u| bound", "|v| bound", "lossless")
    for row in document["layers"]:
        table.add_row(
            str(row["layer"] + 1), f"2^{_log2(row['scale'])}", f"{row['vth']} x 2^-{row['weight_exp']}",
            f"{row['clipped']:.2%}", f"{row['rms_error']:.2%}", f"{row['u_bound']:.0%}", f"{row['v_bound']:.0%}",
            "proven" if row["lossless"] else "not proven",
        )  # fmt: skip
    out.print(table)
    out.print(
        "[dim]bounds: share of the chip's 24-bit state that any input could fill within a control step; "
        "lossless: integers and float runtimes provably spike alike[/dim]"
    )


def _log2(value: float) -> int:
    from math import log2

    return round(log2(value))

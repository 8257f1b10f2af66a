"""`spikerl measure`: energy and speed of a policy's inference in torch, beside the dense network of its task."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spikerl_deploy.cli.common import ForceOption, Format, FormatOption, PolicyArgument, console, print_json, say
from spikerl_deploy.errors import SpikerlError

if TYPE_CHECKING:
    from simulators.inference_cases import Case, Timing

MAX_BATCH = 65_536
MIN_WINDOW_S, MAX_WINDOW_S = 1.0, 120.0  # within the longest a RAPL counter begins anew once at most
PLAN_SCHEMA = "spikerl.measure-plan/1"


def measure(
    policy_file: PolicyArgument,
    device: Annotated[str, typer.Option(help="cpu, cuda or all-available.")] = "all-available",
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, max=MAX_BATCH, help="Observations a call; repeatable; 1 and 64 by default."),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="eager, cuda-graph or compiled; repeatable; eager by default, on CUDA cuda-graph too."),
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Measure in BF16 too.")] = False,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads of torch on the CPU.")] = 1,
    window: Annotated[float, typer.Option(help="Seconds of a window, 1 to 120; 10 or more for figures.")] = 10.0,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Windows a row.")] = 3,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="JSON file that takes the result.")] = None,
    force: ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan only.")] = False,
    output: FormatOption = Format.human,
) -> None:
    """Measure energy and speed of inference, observation to action, in torch.

    The meter is NVML on a GPU and RAPL on a CPU; without RAPL the figure is CodeCarbon's model, and says so.
    """
    if not (math.isfinite(window) and MIN_WINDOW_S <= window <= MAX_WINDOW_S):
        raise SpikerlError(
            f"--window {window:g} is not in {MIN_WINDOW_S:g} to {MAX_WINDOW_S:g} s", "take --window 10 --repeats 3"
        )
    from simulators.inference_cases import Timing, choose_cases
    from spikerl_deploy.files import check_targets, write_json
    from spikerl_deploy.policy_file import load_policy

    policy = load_policy(policy_file)
    if out is not None:
        check_targets([("-o", out)], force, {"policy": policy_file})
    cases, left_out = choose_cases(device, mode or [], batch or [1, 64], bf16)
    timing = Timing(window, repeats, threads)
    policy.codec()  # refuses a core alone
    if dry_run:
        _print_plan(cases, left_out, timing, out, output)
        return
    from simulators.inference_run import measure as run

    document = run(policy, policy_file, cases, timing, left_out, say)
    if out is not None:
        write_json(out, document, force)
    if output is Format.json:
        print_json(document)
    else:
        _print_rows(document)
    if out is not None:
        say(f"next: spikerl report {out} -o report")


def _print_plan(cases: list[Case], left_out: list[str], timing: Timing, out: Path | None, output: Format) -> None:
    document = {
        "schema": PLAN_SCHEMA,
        "rows": [
            {"workload": case.workload, "device": case.device, "mode": case.mode, "batch": case.batch,
             "dtype": case.dtype}
            for case in cases
        ],
        "window_s": timing.window_s,
        "repeats": timing.repeats,
        "threads": timing.threads,
        "seconds": timing.seconds(cases),
        "left_out": left_out,
        "out": None if out is None else str(out),
    }  # fmt: skip
    if output is Format.json:
        print_json(document)
        return
    view = console()
    view.print(
        f"would measure {len(cases)} rows, {timing.repeats} windows of {timing.window_s:g} s each, "
        f"in about {timing.seconds(cases):.0f} s"
    )
    for line in (*map(str, cases), *left_out):
        view.print(f"  {line}", soft_wrap=True)
    view.print(f"  result: {out if out is not None else 'not written (no -o)'}", soft_wrap=True)


def _print_rows(document: dict[str, Any]) -> None:
    from rich.table import Table

    view = console()
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    notes = list(dict.fromkeys(row["note"] for row in document["rows"] if row["note"]))
    for title in ("workload", "where", "batch", "per s", "ms", "uJ total", "uJ above idle", "kind", "note"):
        justify: Literal["left", "right"] = "left" if title in ("workload", "where", "kind") else "right"
        table.add_column(title, justify=justify, no_wrap=True)
    for row in document["rows"]:
        energy = row["energy_uj"] or {"total": None, "above_idle": None}
        where = f"{row['device']} {row['mode']}{' bf16' if row['dtype'] == 'bfloat16' else ''}"
        table.add_row(
            *(row["workload"].removesuffix(" policy"), where, str(row["batch"])),
            *(_number(row["inferences_per_second"]), _number(row["latency_ms"])),
            *(_range(energy[name]) for name in ("total", "above_idle")),
            row["kind"],
            str(notes.index(row["note"]) + 1) if row["note"] else "",
        )
    view.print(
        "uJ per inference: mean ± half the range of the windows; ms: a call with its copies to and from the device",
        soft_wrap=True,
    )
    view.print(table)
    for number, note in enumerate(notes, start=1):
        view.print(f"note {number}: {note}", soft_wrap=True)
    for idle in document["idle"]:
        power = "not metered" if idle["power_w"] is None else f"{idle['power_w']:.3g} W idle, {idle['kind']}"
        view.print(f"{idle['device']}: {power}; {idle['meter']}", soft_wrap=True)
    for warning in document["warnings"]:
        view.print(f"warning: {warning}", soft_wrap=True)


def _range(figure: dict[str, float] | None) -> str:
    if figure is None:
        return "-"
    return f"{_number(figure['mean'])} ± {_number((figure['high'] - figure['low']) / 2)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 0.001 else "0.000"

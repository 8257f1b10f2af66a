"""The tables of docs/energy.md; `python tests/energy_docs.py` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from energy_networks import ANN, POLICY, even_workload

from spikerl_deploy.energy import EXCLUSIONS, estimate_energy, load_energy_chips
from spikerl_deploy.energy_tables import constants_table, references_table

CHIPS = load_energy_chips()
DOCS = Path(__file__).parents[1] / "docs" / "energy.md"
RATE, STEPS, CONTROL_STEP = 0.1, 5, 0.05  # of the example


class Measured(NamedTuple):
    """A network whose dynamic energy an inference was measured on Loihi 1; rates are assumed, none is published."""

    name: str
    sizes: tuple[int, ...]
    time_steps: int
    rates: tuple[float, ...]
    microjoules: float
    source: str


LITERATURE = (
    Measured("keyword spotting", (390, 256, 256, 29), 10, (0.05, 0.1, 0.5), 270.0, "Blouw 2019, table 1"),
    Measured("the same, less 70 mW", (390, 256, 256, 29), 10, (0.05, 0.1, 0.5), (81 - 70) / 296 * 1e3, "Blouw 2019"),
    Measured("SDDPG navigation", POLICY, 5, (0.05, 0.1, 0.5), 15.53, "Tang 2020; could not be checked"),
)


def dynamic(network: Measured, rate: float) -> tuple[float, float]:
    """Low and high of Loihi 1's dynamic energy, in uJ."""
    figures = estimate_energy(even_workload(network.sizes, rate, network.time_steps), ANN, CHIPS)["figures"]
    (found,) = [f for f in figures if f["id"] == "loihi1/chip-dynamic"]
    return found["low"], found["high"]


def example() -> dict[str, Any]:
    """The estimate of the policy class that the docs speak of."""
    return estimate_energy(even_workload(POLICY, RATE, STEPS, control_step_s=CONTROL_STEP), ANN, CHIPS)


def literature_table() -> str:
    rows = [
        "| network | firing rate (assumed) | modelled, uJ | measured, uJ | measured over modelled | source |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for network in LITERATURE:
        for rate in network.rates:
            low, high = dynamic(network, rate)
            ratio = f"{network.microjoules / high:.1f} to {network.microjoules / low:.1f}"
            rows.append(
                f"| {network.name}, {'-'.join(map(str, network.sizes))}, T {network.time_steps} | {rate:.0%} "
                f"| {low:.1f} to {high:.1f} | {network.microjoules:.4g} | {ratio} | {network.source} |"
            )
    return "\n".join(rows)


def example_table() -> str:
    document = example()
    rows = ["| figure | uJ per inference | constants |", "| --- | --- | --- |"]
    for f in document["figures"] + document["baselines"]:
        value = _short(f["low"]) if f["low"] == f["high"] else f"{_short(f['low'])} to {_short(f['high'])}"
        rows.append(f"| `{f['id']}` | {value} | {', '.join(f['constants_kind'])} |")
    return "\n".join(rows)


def break_even_table() -> str:
    rows = ["| break-even | threshold | here | saves |", "| --- | --- | --- | --- |"]
    words = {True: "yes", False: "no", None: "within the range"}
    for each in example()["break_even"]:
        low, high, share = each["threshold_low"], each["threshold_high"], each["quantity"] == "firing rate"
        shown = [("-" if end is None else f"{end:.1%}" if share else f"{end:g}") for end in (low, high)]
        threshold = "at no rate" if low is high is None else shown[0] if low == high else " to ".join(shown)
        here = f"{each['here']:.0%}" if share else f"{each['here']:g} a synapse"
        rows.append(f"| `{each['id']}` | {threshold} | {here} | {words[each['saves']]} |")
    return "\n".join(rows)


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


TABLES: dict[str, Callable[[], str]] = {
    "constants": lambda: constants_table(CHIPS),
    "references": lambda: references_table(CHIPS),
    "literature": literature_table,
    "example": example_table,
    "break-even": break_even_table,
    "exclusions": lambda: "\n".join(f"- {each}" for each in EXCLUSIONS),
}


def place(name: str) -> re.Pattern[str]:
    """Where a table lies in the docs, with its last line's end."""
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)


if __name__ == "__main__":
    text = DOCS.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        lines = table() + "\n"
        text = place(name).sub(lambda _, lines=lines: lines, text, count=1)
    DOCS.write_text(text, encoding="utf-8")

"""Energy of an inference on a log scale, a tag at every bar, and energy against firing rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikerl_deploy.report.plots.plot import Plot
from spikerl_deploy.report.plots.style import HALF, KIND_COLOURS, PALETTE, SERIES, WIDE, bottom_legend, new_figure
from spikerl_deploy.report.table import capitalized, joule_span, joules, number, percent, shorten
from spikerl_deploy.report.tables import VERDICTS, deployed, headline_figure
from spikerl_deploy.report.tables_energy import baselines_table, break_even_table, energy_table, sweep_table

_ROW = 0.235  # inches
_METERED = "Inference in torch, idle power included"


@dataclass(frozen=True)
class Bar:
    """A range of energies in µJ per inference with its tag; a heading has no range, and stands above its group."""

    group: str
    label: str = ""
    low: float | None = None
    high: float | None = None
    kind: str = ""
    headline: bool = False


def energy_bars(deployment: dict[str, Any], inference: Sequence[dict[str, Any]]) -> list[Bar]:
    """All bars of a deployment, from the top: models, baselines, and what was metered of this policy in torch."""
    energy = deployed(deployment)["energy"]
    headline = energy["headline"]["id"]
    bars: list[Bar] = []
    for part, prefix in (("figures", ""), ("baselines", "Baselines, ")):
        for model in energy["models"]:
            group = capitalized(prefix + model["title"])
            bars += _group(
                [
                    Bar(group, figure["title"], figure["low"], figure["high"], figure["kind"], figure["id"] == headline)
                    for figure in energy[part]
                    if figure["model"] == model["model"]
                ]
            )
        known = {model["model"] for model in energy["models"]}
        others = [figure for figure in energy[part] if figure["model"] not in known]
        bars += _group(
            [Bar(f"{prefix}other", item["title"], item["low"], item["high"], item["kind"]) for item in others]
        )
    for document in inference:
        if document["policy"]["sha256"] != deployment["policy"]["sha256"]:
            continue
        for row in document["rows"]:
            total = (row["energy_uj"] or {}).get("total")
            if total:
                label = f"{row['workload']}, {row['device']}, {row['mode']}, {row['dtype']}, batch {row['batch']}"
                bars.append(Bar(_METERED, label, total["low"], total["high"], row["kind"]))
    metered = [bar for bar in bars if bar.group == _METERED]
    return [bar for bar in bars if bar.group != _METERED] + _group(metered)


def _group(bars: list[Bar]) -> list[Bar]:
    """A heading and its bars, the lowest energy first; nothing where there are none."""
    return [Bar(bars[0].group), *sorted(bars, key=lambda bar: bar.high or 0.0)] if bars else []


def draw_energy(deployment: dict[str, Any], inference: Sequence[dict[str, Any]]) -> Plot | None:
    """Horizontal ranges on one log axis, grouped by model; every bar says whether it is measured or modelled."""
    bars = energy_bars(deployment, inference)
    ends = [end for bar in bars for end in (bar.low, bar.high) if end is not None and end > 0]
    if not ends:
        return None
    figure = new_figure(WIDE, 0.75 + _ROW * len(bars))
    axes = figure.subplots()
    axes.set_xscale("log")
    low, high = np.log10(min(ends)), np.log10(max(ends))
    axes.set_xlim(10 ** (low - 0.25), 10 ** (high + 0.3 + 0.42 * (high - low + 0.6)))  # room for the tags
    axes.set_ylim(len(bars) - 0.3, -0.9)
    for place, bar in enumerate(bars):
        _draw_bar(axes, place, bar)
    _energy_axis(axes.xaxis, low, high)
    axes.xaxis.grid(True)
    axes.set_yticks(range(len(bars)), [shorten(bar.label or bar.group, 52) for bar in bars])
    for tick, bar in zip(axes.get_yticklabels(), bars, strict=True):
        tick.set_color(PALETTE["ink"] if bar.headline or not bar.label else PALETTE["muted"])
        tick.set_fontweight("bold" if bar.headline or not bar.label else "normal")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("energy per inference, log scale")
    tables = energy_table(deployment), baselines_table(deployment)
    return Plot(
        f"{deployment['id']}-energy", deployment["id"], "Energy of an inference", _finding(deployment, bars), figure,
        tables, wide=True,
    )  # fmt: skip


def _draw_bar(axes: Any, place: int, bar: Bar) -> None:
    if not bar.label:
        axes.axhline(place + 0.48, color=PALETTE["rule"], linewidth=0.7)
        return
    left = axes.get_xlim()[0]
    low, high = bar.low or 0.0, bar.high or 0.0
    if high > 0:
        colour = PALETTE[KIND_COLOURS.get(bar.kind, "grey")]
        if high > 1.02 * low:
            axes.plot([max(low, left), high], [place, place], color=colour, linewidth=6, solid_capstyle="butt")
        else:
            axes.plot([high], [place], "o", color=colour, markersize=5.5)
    text = f"{joule_span(bar.low, bar.high)}  {bar.kind}"
    weight = "bold" if bar.headline else "normal"
    axes.annotate(text, (max(high, left), place), (7, 0), textcoords="offset points", va="center", weight=weight)


def _energy_axis(axis: Any, low: float, high: float) -> None:
    """Ticks at whole powers of ten with a prefix of their own, as far as there are bars."""
    from matplotlib.ticker import NullLocator

    first, last = int(np.floor(low)), int(np.ceil(high))
    step = -(-(last - first + 1) // 9)
    parts = (1, 2, 5) if high - low < 2.2 else (1,)
    values = [part * 10.0**power for power in range(first, last + 1, step) for part in parts]
    bottom, top = axis.get_view_interval()
    values = [value for value in values if bottom <= value <= min(top, 10.0**last)] or [10.0**low]
    axis.set_ticks(values, [joules(value, 1) for value in values])
    axis.set_minor_locator(NullLocator())


def _finding(deployment: dict[str, Any], bars: Sequence[Bar]) -> str:
    figure = headline_figure(deployment)
    text = ""
    if figure:
        text = f"{figure['title']}, {figure['what']}: {joule_span(figure['low'], figure['high'])} ({figure['kind']}). "
    drawn = [bar for bar in bars if bar.high]
    least, most = min(drawn, key=lambda bar: bar.high or 0), max(drawn, key=lambda bar: bar.high or 0)
    return (
        f"{text}Of {len(drawn)} ranges the lowest is {_named(least)} at {joule_span(least.low, least.high)} "
        f"({least.kind}), the highest {_named(most)} at {joule_span(most.low, most.high)} ({most.kind})."
    )


def _named(bar: Bar) -> str:
    return f"{bar.label} in '{bar.group}'"


def draw_sweep(deployment: dict[str, Any]) -> Plot | None:
    """Energy at this structure if it fired more or less, against an ANN that does not fire; this policy marked."""
    energy = deployed(deployment)["energy"]
    sweep, table = energy.get("sweep"), sweep_table(deployment)
    if not sweep or table is None or len(sweep["rates"]) < 2:
        return None
    models = {model["model"]: model["title"] for model in energy["models"]}
    titles = {
        item["id"]: f"{item['title']}, {models.get(item['model'], item['model'])}"
        for item in (*energy["figures"], *energy["baselines"])
    }
    figure = new_figure(HALF, 2.9 + 0.19 * len(sweep["figures"]))
    axes = figure.subplots()
    rates = np.array(sweep["rates"])
    flat = {item["id"] for item in energy["baselines"]}
    families = list(dict.fromkeys(item["id"].rpartition("/")[2] for item in sweep["figures"]))
    for item in sweep["figures"]:
        colour = PALETTE[SERIES[families.index(item["id"].rpartition("/")[2]) % len(SERIES)]]  # one a model
        line = "--" if item["id"] in flat else "-"
        low, high = np.array(item["low"]), np.array(item["high"])
        label = shorten(titles.get(item["id"], item["id"]), 60)
        axes.fill_between(rates, low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(rates, high, color=colour, label=label, linestyle=line)
        axes.plot(rates, low, color=colour, linewidth=0.9, linestyle=line)
    positive = [end for item in sweep["figures"] for end in (*item["low"], *item["high"]) if end > 0]
    if positive:
        axes.set_yscale("log", nonpositive="clip")
        bottom, top = np.log10(np.quantile(positive, 0.005)), np.log10(max(positive))
        axes.set_ylim(10 ** (bottom - 0.1), 10 ** (top + 0.3))
        _energy_axis(axes.yaxis, bottom, top)
    if sweep["here"] is not None:
        axes.axvline(sweep["here"], color=PALETTE["ink"], linewidth=1)
        right = sweep["here"] > rates.mean()
        axes.annotate(f"this policy: {number(sweep['here'], 3)}", (sweep["here"], 1),
                      (-4 if right else 4, -4), xycoords=("data", "axes fraction"), textcoords="offset points",
                      ha="right" if right else "left", va="top")  # fmt: skip
    axes.set(xlabel="firing rate (spikes a synapse and time step)", title="energy per inference, modelled, low to high")
    axes.yaxis.grid(True)
    bottom_legend(figure, axes, columns=1)
    return Plot(
        f"{deployment['id']}-break-even", deployment["id"], "Energy against firing rate",
        _break_even_finding(energy, sweep), figure, (break_even_table(deployment), table),
    )  # fmt: skip


def _break_even_finding(energy: dict[str, Any], sweep: dict[str, Any]) -> str:
    parts = []
    for entry in energy["break_even"]:
        ends = [percent(end) if entry["quantity"] == "firing rate" else number(end, 3)
                for end in (entry["threshold_low"], entry["threshold_high"]) if end is not None]  # fmt: skip
        limit = " to ".join(dict.fromkeys(ends)) or "no threshold"
        parts.append(f"{entry['title']}: {limit} ({VERDICTS[entry['saves']]})")
    here = ""
    if sweep["here"] is not None:
        here = (
            f"This policy's firing rate is {percent(sweep['here'])}, that of what enters the layers, weighted by "
            "synapses: no layer's own. "
        )
    return f"{here}Break-even thresholds: {'; '.join(parts) or 'none'}."

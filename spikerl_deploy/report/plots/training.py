"""Training: learning curves, energy by section of the loop, and the Speedup-Powerup plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spikerl_deploy.report.plots.plot import Plot
from spikerl_deploy.report.plots.style import HALF, KIND_COLOURS, PALETTE, SERIES, bottom_legend, new_figure, prefixes
from spikerl_deploy.report.table import joules, number, percent, shorten
from spikerl_deploy.report.tables_overview import curves_table, sections_table, speedup_table

PLACE = "training"
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "^", "D", "v")


def draw_training(runs: Sequence[dict[str, Any]], speedups: Sequence[dict[str, Any]]) -> list[Plot | None]:
    """Curves of each environment, energy of all runs, and their comparison."""
    environments = list(dict.fromkeys(run["env"] for run in runs))
    curves = [_curves(index, [run for run in runs if run["env"] == env]) for index, env in enumerate(environments)]
    return [*curves, _sections(runs), _quadrant(runs, speedups)]


def _curves(index: int, runs: Sequence[dict[str, Any]]) -> Plot | None:
    drawn = [run for run in runs if run["curve"]]
    if not drawn:
        return None
    figure = new_figure(HALF, 3.4)
    axes = figure.subplots()
    for place, run in enumerate(drawn):
        colour = PALETTE[SERIES[place % len(SERIES)]]
        steps = [point["step"] for point in run["curve"]]
        mean = [point["mean_return"] for point in run["curve"]]
        if all(point["low"] is not None and point["high"] is not None for point in run["curve"]):
            low, high = ([point[end] for point in run["curve"]] for end in ("low", "high"))
            axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        marker = "o" if len(steps) < 3 else ""
        axes.plot(steps, mean, _DASHES[place % 4], marker=marker, color=colour, label=shorten(run["title"], 40))
    banded = "; band: lowest and highest seed" if axes.collections else ""
    axes.set(title=f"mean return of the evaluations{banded}", xlabel="environment steps of a seed")
    axes.yaxis.grid(True)
    prefixes(axes.xaxis)
    prefixes(axes.yaxis)
    bottom_legend(figure, axes, columns=2)
    finding = "; ".join(
        f"{run['title']}: best {number(run['best_return'])}, mean of the last ten {number(run['last_ten_mean'])}, "
        f"{number(run['steps'])} steps over {run['seeds']} seed{'s' if run['seeds'] != 1 else ''}"
        for run in drawn
    )
    title = f"Learning curve: {shorten(str(drawn[0]['env'] or 'environment unknown'), 40)}"
    return Plot(f"{PLACE}-curve-{index + 1}", PLACE, title, f"Mean return. {finding}.", figure, (curves_table(drawn),))


def _sections(runs: Sequence[dict[str, Any]]) -> Plot | None:
    drawn = [run for run in runs if run["energy"] and run["energy"]["sections"]]
    if not drawn:
        return None
    bars: list[tuple[str, float | None, str]] = []
    for run in drawn:
        bars.append((run["title"], None, ""))
        bars += [(name, part["energy_joule"], part["kind"]) for name, part in run["energy"]["sections"].items()]
    figure = new_figure(HALF, 0.7 + 0.235 * len(bars))
    axes = figure.subplots()
    longest = max((joule or 0.0) for _, joule, _ in bars)
    for place, (_, joule, kind) in enumerate(bars):
        if kind:
            axes.barh(place, joule or 0.0, 0.62, color=PALETTE[KIND_COLOURS.get(kind, "grey")])
            text = kind if joule is None else f"{joules(joule * 1e6)}  {kind}"
            axes.annotate(text, (joule or 0.0, place), (5, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, max(longest, 1e-9) * 1.5)  # room for the tags
    axes.set_ylim(len(bars) - 0.4, -0.7)
    axes.set_yticks(range(len(bars)), [shorten(label, 26) for label, _, _ in bars])
    for tick, (_, _, kind) in zip(axes.get_yticklabels(), bars, strict=True):
        tick.set(color=PALETTE["muted"] if kind else PALETTE["ink"], weight="normal" if kind else "bold")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("energy (J)")
    prefixes(axes.xaxis)
    axes.xaxis.grid(True)
    parts = []
    for run in drawn:
        energy, carbon = run["energy"], run["carbon"]
        share = {name: (part["energy_joule"] or 0.0) / energy["joule"] for name, part in energy["sections"].items()
                 if energy["joule"]}  # fmt: skip
        most = max(share, key=lambda name: share[name], default=None)
        emitted = f", {number(carbon['kg_co2eq'] * 1e3, 3)} g CO2eq ({carbon['kind']})" if carbon else ""
        mostly = f", {percent(share[most], 2)} of it {most}" if most else ""
        parts.append(f"{run['title']} {joules(energy['joule'] * 1e6)} ({energy['kind']}){mostly}{emitted}")
    return Plot(
        f"{PLACE}-energy", PLACE, "Energy of training", f"{'; '.join(parts)}.", figure, (sections_table(drawn),)
    )


def _quadrant(runs: Sequence[dict[str, Any]], speedups: Sequence[dict[str, Any]]) -> Plot | None:
    """Abdulsalam et al. 2015, figure 1: below the diagonal Greenup = 1 a run takes less energy than its baseline."""
    drawn = [item for item in speedups if item["powerup"]]
    if not drawn:
        return None
    titles = {run["id"]: run["title"] for run in runs}
    x = np.array([item["speedup"] for item in drawn])
    y = np.array([item["powerup"] for item in drawn])
    reach = max(1.5, 1.35 * float(np.exp(np.abs(np.log(np.concatenate([x, y]))).max())))
    figure = new_figure(HALF, 4.5 + 0.19 * len(drawn))
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlim=(1 / reach, reach), ylim=(1 / reach, reach))
    axes.set_box_aspect(1)
    axes.fill_between(
        [1 / reach, reach], [1 / reach, reach], 1 / reach, color=PALETTE["green"], alpha=0.13, linewidth=0
    )
    axes.plot([1 / reach, reach], [1 / reach, reach], color=PALETTE["grey"], linewidth=1, linestyle="--")
    axes.axhline(1, color=PALETTE["rule"], linewidth=1)
    axes.axvline(1, color=PALETTE["rule"], linewidth=1)
    base = shorten(titles.get(drawn[0]["baseline"], drawn[0]["baseline"]), 40)
    axes.plot(1, 1, "s", color=PALETTE["ink"], markersize=10, markerfacecolor="none", label=f"{base}, baseline")
    for index, item in enumerate(drawn):
        name = shorten(titles.get(item["run"], item["run"]), 40)
        axes.plot(x[index], y[index], _MARKERS[index // len(SERIES) % len(_MARKERS)], markersize=6,
                  color=PALETTE[SERIES[index % len(SERIES)]], label=f"{name}, {item['kind']}")  # fmt: skip
    _ratio_ticks(axes, reach)
    axes.set(xlabel="Speedup", ylabel="Powerup", title="shaded: less energy than the baseline; dashed: Greenup = 1")
    bottom_legend(figure, axes, columns=1)
    finding = "; ".join(
        f"{titles.get(item['run'], item['run'])} has Speedup {number(item['speedup'], 3)}, Greenup "
        f"{number(item['greenup'], 3)}, Powerup {number(item['powerup'], 3)} ({item['kind']})"
        for item in drawn
    )
    return Plot(f"{PLACE}-speedup", PLACE, "Speedup and Powerup", f"Against {base}: {finding}.", figure,
                (speedup_table(speedups, titles),))  # fmt: skip


def _ratio_ticks(axes: Any, reach: float) -> None:
    from matplotlib.ticker import NullLocator

    steps: tuple[float, ...] = (1, 2, 5, 10, 20, 50) if 1.9 < reach < 60 else (1, 1.2, 1.5)
    if reach >= 60:
        steps = tuple(10.0**power for power in range(0, 13, 1 if reach < 1e4 else 3))
    above = [value for value in steps if value < reach]
    values = sorted({1 / value for value in above} | set(above))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(values, [f"{value:.3g}" for value in values])
        axis.set_minor_locator(NullLocator())

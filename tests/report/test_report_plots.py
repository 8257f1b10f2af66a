"""What each plot shows: the marks that were drawn, compared with the document, and which plots there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
import sample

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.report.plots import Plot, draw_plots, write_plots
from spikerl_deploy.report.plots.activity import RASTER_SPIKES, draw_raster
from spikerl_deploy.report.plots.energy import energy_bars
from spikerl_deploy.report.plots.membranes import draw_membranes
from spikerl_deploy.report.plots.quantization import width_groups
from spikerl_deploy.report.plots.style import drawing
from spikerl_deploy.report.tables_overview import summary_table

PER_DEPLOYMENT = ("returns", "operations", "energy", "break-even", "rates", "raster", "membranes")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return sample.full_report()


@pytest.fixture(scope="module")
def plots(document: dict[str, Any]) -> dict[str, Plot]:
    return {plot.id: plot for plot in draw_plots(document)}


def texts(plot: Plot) -> list[str]:
    return [text.get_text() for axes in plot.figure.axes for text in axes.texts]


def test_every_part_of_a_full_report_is_drawn_once(document: dict[str, Any], plots: dict[str, Plot]) -> None:
    expected = [f"{item['id']}-{name}" for item in document["deployments"] for name in PER_DEPLOYMENT]
    others = ["conformance-1", "training-curve-1", "training-energy", "training-speedup"]
    assert list(plots) == ["quantization-1", *expected, *others]
    assert all(plot.tables and plot.finding and plot.title for plot in plots.values())


def test_what_is_absent_is_not_drawn() -> None:
    deployment = sample.deployment(seeds=1)
    deployment |= {"spikes": None, "membranes": None, "firing_rates": [], "comparison": None}
    del deployment["backends"]["torch"]
    deployment["backends"]["lava"]["return_interval"] = None
    deployment["backends"]["lava"]["energy"]["sweep"] = None
    names = [plot.id.removeprefix(deployment["id"]) for plot in draw_plots(sample.report(deployment))]
    assert names == ["-returns", "-operations", "-energy"]
    assert draw_plots(sample.report() | {"deployments": []}) == []


def test_returns_are_marked_at_their_seeds(document: dict[str, Any], plots: dict[str, Plot]) -> None:
    deployment = document["deployments"][0]
    points, means = plots[f"{deployment['id']}-returns"].figure.axes
    for line, entry in zip(points.lines, deployment["backends"].values(), strict=True):
        assert list(line.get_ydata()) == entry["returns"]
    assert [line.get_ydata()[0] for line in means.lines[::2]] == [
        entry["mean_return"] for entry in deployment["backends"].values()
    ]
    assert [list(line.get_ydata()) for line in means.lines[1::2]] == [
        entry["return_interval"] for entry in deployment["backends"].values()
    ]
    finding = plots[f"{deployment['id']}-returns"].finding
    assert f"Retention of the return: {deployment['comparison']['retention']:.3f}" in finding


def test_equal_returns_leave_the_deployment_in_sight_inside_the_baseline() -> None:
    deployment = sample.deployment(seeds=4)
    backends = deployment["backends"]
    backends["lava"]["returns"] = backends["torch"]["returns"]
    deployment["backends"] = {"torch": backends["torch"], "lava": backends["lava"]}
    (plot,) = (plot for plot in draw_plots(sample.report(deployment)) if plot.id.endswith("-returns"))
    for axes in plot.figure.axes:
        baseline, deployed = [line for line in axes.lines if line.get_marker() != "None"]
        assert baseline.get_markerfacecolor() == "none"
        assert deployed.get_markerfacecolor() == deployed.get_color()
        assert baseline.get_markersize() > deployed.get_markersize() + 1
    legend = plot.figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["torch", "lava"]


def test_a_raster_has_a_dash_a_spike() -> None:
    deployment = sample.deployment()
    with drawing():
        plot = draw_raster(deployment)
    assert plot is not None
    panels = plot.figure.axes
    for axes, layer in zip(panels, deployment["spikes"]["layers"], strict=True):
        (patch,) = axes.patches
        ends = patch.get_path().vertices.reshape(-1, 2, 2)
        assert ends[:, :, 0].mean(axis=1) == pytest.approx(layer["time"])
        assert ends[:, 0, 1].tolist() == layer["neuron"]


def test_a_raster_of_too_many_spikes_shows_fewer_control_steps() -> None:
    deployment = sample.deployment(seeds=2)
    times = [[0, 4, 5, 6], [9, 10, 11]]  # T = 5: three control steps with 2, 3 and 2 spikes
    deployment["spikes"]["layers"] = [
        {"name": f"layer {index}", "neurons": 3, "time": time, "neuron": [0] * len(time)}
        for index, time in enumerate(times)
    ]
    deployment["spikes"]["control_steps"] = 3
    with drawing():
        plots = [draw_raster(deployment, limit) for limit in (0, 4, 5, 6, 7)]
    assert [plot.title for plot in plots if plot] == [
        f"Spikes of the first {steps}"
        for steps in ("control step", "control step", *["2 control steps"] * 2, "3 control steps")
    ]
    assert plots[2] is not None
    shown = [len(axes.patches[0].get_path().vertices) // 2 for axes in plots[2].figure.axes]
    assert shown == [4, 1]


def test_the_rasters_of_a_page_share_its_spikes() -> None:
    crowded = [sample.deployment(bits, seeds=2, rate=0.45) for bits in (8, 4)]
    counts = [sum(len(layer["time"]) for layer in item["spikes"]["layers"]) for item in crowded]
    assert sum(counts) > RASTER_SPIKES
    panels = [
        axes for plot in draw_plots(sample.report(*crowded)) if plot.id.endswith("raster") for axes in plot.figure.axes
    ]
    drawn = sum(len(axes.patches[0].get_path().vertices) // 2 for axes in panels)
    assert 0.8 * RASTER_SPIKES < drawn <= RASTER_SPIKES


def test_operations_are_drawn_inside_dense_arithmetic(document: dict[str, Any], plots: dict[str, Plot]) -> None:
    deployment = document["deployments"][0]
    layers = deployment["backends"]["lava"]["workload"]["layers"]
    (axes,) = plots[f"{deployment['id']}-operations"].figure.axes
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == [layer["dense"] for layer in layers] + [layer["effective_acs"] for layer in layers]


def test_every_energy_bar_carries_its_tag(document: dict[str, Any], plots: dict[str, Plot]) -> None:
    for deployment in document["deployments"]:
        energy = deployment["backends"]["lava"]["energy"]
        bars = energy_bars(deployment, document["inference"])
        drawn = [bar for bar in bars if bar.label]
        assert len(drawn) == len(energy["figures"]) + len(energy["baselines"]) + len(document["inference"][0]["rows"])
        (axes,) = plots[f"{deployment['id']}-energy"].figure.axes
        assert len(axes.texts) == len(drawn)
        places = [place for place, bar in enumerate(bars) if bar.label]
        labels = axes.get_yticklabels()
        for place, bar, tag in zip(places, drawn, axes.texts, strict=True):
            assert tag.xy[1] == place
            assert tag.get_text().endswith(bar.kind)
            assert labels[place].get_text() == bar.label
        measured = [text.get_text() for text in axes.texts if text.get_text().endswith("measured")]
        assert measured == ["9.36 to 12.5 mJ  measured", "46.8 to 62.4 mJ  measured"]


def test_energy_bars_begin_and_end_at_the_figures(document: dict[str, Any], plots: dict[str, Plot]) -> None:
    deployment = document["deployments"][0]
    energy = deployment["backends"]["lava"]["energy"]
    (axes,) = plots[f"{deployment['id']}-energy"].figure.axes
    drawn = {tuple(line.get_xdata()) for line in axes.lines}
    for item in (*energy["figures"], *energy["baselines"]):
        ends = (item["low"], item["high"])
        assert (ends if item["high"] > 1.02 * item["low"] else ends[1:]) in drawn
    assert axes.get_xscale() == "log"


def test_no_energy_at_all_is_a_bar_without_length() -> None:
    deployment = sample.deployment(seeds=2)
    energy = deployment["backends"]["lava"]["energy"]
    for item in energy["figures"]:
        item |= {"low": 0.0, "high": 0.0}
    energy["figures"][0] |= {"low": None, "high": None}
    plots = {plot.id: plot for plot in draw_plots(sample.report(deployment))}
    shown = texts(plots[f"{deployment['id']}-energy"])
    assert shown.count("0 µJ  modelled") == len(energy["figures"]) - 1
    assert shown.count("\N{EN DASH}  modelled") == 1


def test_measured_energy_of_another_policy_is_not_drawn_beside_this_one(document: dict[str, Any]) -> None:
    deployment = sample.deployment()
    deployment["policy"]["sha256"] = "0" * 64
    assert not any(bar.group.startswith("Inference") for bar in energy_bars(deployment, document["inference"]))


def test_the_speedup_plane_has_the_runs_that_have_an_energy(plots: dict[str, Plot]) -> None:
    (axes,) = plots["training-speedup"].figure.axes
    marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "o"]
    assert marks == [(2.9, 2.9 / 2.14)]
    diagonal = axes.lines[0]
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    assert "Speedup 2.90, Greenup 2.14, Powerup 1.36 (modelled)" in plots["training-speedup"].finding


def test_runs_near_their_baseline_are_named_below_the_speedup_plane() -> None:
    names = [f"run-{index}" for index in range(6)]
    speedups = [sample.speedup(name, 1 + index / 100, 1.0) for index, name in enumerate(names)]
    runs = [sample.training_run(name, 10.0, 10.0) for name in ("float32-baseline", *names)]
    document = sample.report() | {"deployments": [], "training": runs, "speedups": speedups}
    (plot,) = (plot for plot in draw_plots(document) if plot.id == "training-speedup")
    (axes,), (legend,) = plot.figure.axes, plot.figure.legends
    assert not axes.texts
    named = [text.get_text() for text in legend.get_texts()]
    assert named == ["float32 baseline, baseline", *(f"{name.replace('-', ' ')}, modelled" for name in names)]
    baseline, *marks = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert baseline.get_markerfacecolor() == "none"
    assert len({(line.get_marker(), line.get_color()) for line in marks}) == len(names)
    plot.figure.canvas.draw()
    assert legend.get_window_extent().y1 < axes.get_tightbbox().y0


@pytest.mark.parametrize("steps", [1, 3, 15])
def test_time_steps_are_whole_numbers(steps: int) -> None:
    deployment = sample.deployment(seeds=2)
    deployment["spikes"]["time_steps"] = 5 if steps > 1 else 1
    for layer in deployment["membranes"]["layers"]:
        for trace in layer["traces"]:
            trace |= {"voltage": trace["voltage"][:steps], "spikes": []}
    with drawing():
        rasters = [draw_raster(deployment, limit) for limit in (0, 500 * steps)]
        plots = [*rasters, draw_membranes(deployment)]
    for plot in plots:
        assert plot is not None
        plot.figure.canvas.draw()
        axes = plot.figure.axes[-1]
        ticks = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
        assert ticks
        assert all(tick == int(tick) for tick in ticks)


def test_the_rate_of_the_sweep_is_said_to_be_one_of_synapses(plots: dict[str, Plot]) -> None:
    (plot,) = (plot for plot in plots.values() if plot.id == "half-cheetah-8-bit-lava-break-even")
    assert "that of what enters the layers, weighted by synapses: no layer's own" in plot.finding
    assert plot.figure.axes[0].get_xlabel() == "firing rate (spikes a synapse and time step)"


def test_widths_are_those_that_the_backend_ran() -> None:
    floats = [sample.deployment(bits, backend="torch") for bits in (8, 4, 2)]
    for item in floats:
        item["backends"]["torch"]["workload"]["footprint"]["weight_bits"] = 32
    assert width_groups(floats) == []
    assert [row[2] for row in summary_table(floats).rows] == ["float"] * 3
    assert [row[2] for row in summary_table([sample.deployment(8), sample.deployment(None)]).rows] == [8, "float"]


@pytest.mark.parametrize(
    "path",
    [
        ("policy", "sizes", [170, 64, 64, 60]),
        ("policy", "time_steps", 4),
        ("policy", "coding", "poisson"),
        ("policy", "provenance", {"made_from": {"source": {"name": "a.nir", "sha256": "b" * 64}}}),
        ("policy", "sha256", "b" * 64),
        ("environment", "perturbation", {"noise": 0.1}),
        ("comparison", "baseline", "fixed"),
    ],
)
def test_a_curve_over_bits_is_of_one_network_in_one_task(path: tuple[str, str, Any]) -> None:
    part, key, value = path
    wide, narrow = sample.deployment(8), sample.deployment(4)
    assert len(width_groups([wide, narrow])) == 1
    narrow[part][key] = value
    assert width_groups([wide, narrow]) == []
    assert len(draw_plots(sample.report(wide, narrow))) == 2 * len(PER_DEPLOYMENT)


def test_quantized_files_of_one_trained_file_are_one_network() -> None:
    trained = {"made_from": {"source": {"name": "best.pt", "sha256": "a" * 64}}, "origin": {"checkpoint": "best.pt"}}
    exported = {"made_from": {"source": {"name": "a.nir", "sha256": "b" * 64}}, "origin": trained}
    group = [sample.deployment(bits) for bits in (8, 6, 4)]
    for item, provenance, sha256 in zip(group, (exported, trained, {"made_from": 3}), "cda", strict=True):
        item["policy"] |= {"provenance": provenance, "sha256": sha256 * 64}
    assert width_groups(group) == [group]


def test_widths_are_compared_only_where_all_else_is_equal() -> None:
    wide, narrow, float_ = sample.deployment(8), sample.deployment(4), sample.deployment(None)
    other_backend, other_seeds = sample.deployment(6, backend="fixed"), sample.deployment(6, seeds=3)
    perturbed = sample.deployment(2)
    perturbed["environment"]["perturbation"] = {"noise": 0.1}
    groups = width_groups([narrow, other_backend, wide, other_seeds, perturbed, float_, sample.deployment(8)])
    assert [[item["policy"]["bits"] for item in group] for group in groups] == [[None, 8, 4]]
    assert groups[0][1] is wide
    assert width_groups([wide, sample.deployment(8)]) == []


def test_the_sweep_over_widths_shows_retention_operations_and_energy(
    document: dict[str, Any], plots: dict[str, Plot]
) -> None:
    left, middle, right = plots["quantization-1"].figure.axes
    order = [document["deployments"][index] for index in (3, 0, 1, 2)]  # float, 8, 6, 4
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["float", "8", "6", "4"]
    marks = [line.get_ydata()[0] for line in left.lines if line.get_marker() == "o"]
    assert marks == [item["comparison"]["retention"] for item in order]
    counts = [item["backends"]["lava"]["workload"]["per_inference"]["synaptic_operations"] for item in order]
    assert [bar.get_height() for bar in middle.patches] == counts
    figures = [item["backends"]["lava"]["energy"]["figures"] for item in order]
    headlines = [next(item for item in found if item["id"] == "loihi1/chip-dynamic") for found in figures]
    ends = [list(line.get_ydata()) for line in right.lines if line.get_marker() == "_"]
    assert ends == [[item["low"], item["high"]] for item in headlines]


def test_a_sweep_of_returns_writes_them_in_full() -> None:
    group = [sample.deployment(bits, seeds=1) for bits in (8, 4)]
    for item in group:
        del item["backends"]["torch"]
        item |= {"comparison": None, "spikes": None, "membranes": None}
        item["backends"]["lava"] |= {"mean_return": 10_200.0 + item["policy"]["bits"], "return_interval": None}
    plot = draw_plots(sample.report(*group))[0]
    plot.figure.canvas.draw()
    labels = [label.get_text() for label in plot.figure.axes[0].get_yticklabels()]
    assert labels[0].startswith("10,2")
    assert plot.finding.startswith("Over 1 seed: 8 bits: mean return 10,208,")


def test_the_conformance_matrix_tells_by_symbols(plots: dict[str, Plot]) -> None:
    shown = texts(plots["conformance-1"])
    assert shown[:4] == ["✓ passed", "= equal", "= equal", "= equal"]
    assert shown[12:16] == ["✗ failed", "≠ 1,024", "≠ 5,310", "≠ 871"]
    assert shown[16:] == ["○ skipped", "not run", "not run", "not run"]


def test_training_energy_is_tagged_by_section(document: dict[str, Any], plots: dict[str, Plot]) -> None:
    (axes,) = plots["training-energy"].figure.axes
    runs = [run for run in document["training"] if run["energy"]]
    parts = [part for run in runs for part in run["energy"]["sections"].values()]
    assert [bar.get_width() for bar in axes.patches] == [part["energy_joule"] for part in parts]
    assert len(axes.texts) == len(parts)
    assert all(text.get_text().endswith("modelled") for text in axes.texts)


def test_curves_have_a_band_where_there_are_seeds(document: dict[str, Any], plots: dict[str, Plot]) -> None:
    (axes,) = plots["training-curve-1"].figure.axes
    assert len(axes.collections) == len(axes.lines) == 3
    assert list(axes.lines[0].get_ydata()) == [point["mean_return"] for point in document["training"][0]["curve"]]
    alone = sample.training_run("one-seed", 10.0, None)
    for point in alone["curve"]:
        point |= {"low": None, "high": None}
    (plot,) = draw_plots(sample.report() | {"deployments": [], "training": [alone]})
    assert not plot.figure.axes[0].collections


def test_plots_are_files_and_not_overwritten(tmp_path: Path) -> None:
    document = sample.report() | {"deployments": [], "conformance": [sample.conformance()]}
    (plot,) = draw_plots(document)
    written = write_plots(document, tmp_path, ("png", "svg"), plots=[plot])
    assert [path.name for path in written] == ["conformance-1.png", "conformance-1.svg"]
    pixels = matplotlib.image.imread(tmp_path / "conformance-1.png")
    width, height = plot.figure.get_size_inches() * 200
    assert abs(pixels.shape[1] - width) <= 1
    assert abs(pixels.shape[0] - height) <= 1
    assert np.allclose(pixels[0, 0, :3], 1)  # white paper
    root = ElementTree.parse(tmp_path / "conformance-1.svg").getroot()
    assert root.attrib["width"].endswith("pt")
    with pytest.raises(SpikerlError, match="not overwritten"):
        write_plots(document, tmp_path, ("png",))
    write_plots(document, tmp_path, ("png",), force=True)


def test_drawing_imports_neither_pyplot_nor_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.path.insert(0, 'tests/report'); import sample; from spikerl_deploy.report.page import page; "
        "light = 'matplotlib' not in sys.modules; page(sample.report()); "
        "print(light, [m for m in ('torch', 'snntorch', 'gymnasium', 'matplotlib.pyplot') if m in sys.modules])"
    )
    from support import ROOT

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "True []"

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
from spikerl_deploy.report.plots.quantization import width_groups
from spikerl_deploy.report.plots.style import drawing

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
        f"Spikes of the first {steps} control steps" for steps in (1, 1, 2, 2, 3)
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

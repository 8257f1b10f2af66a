"""Plots as SVG: safe to put side by side into one page, readable as text, and exact."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
import sample

from spikerl_deploy.report.plots import Plot, draw_plots
from spikerl_deploy.report.plots.style import PALETTE
from spikerl_deploy.report.svg import plot_svg

HOSTILE = "</text></svg><script>alert(1)</script>\"'&$x^2$ 🦾\x00\u202e"
NAMESPACE = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def plots() -> dict[str, Plot]:
    document: dict[str, Any] = sample.full_report(8)
    return {plot.id: plot for plot in draw_plots(document)}


@pytest.fixture(scope="module")
def roots(plots: dict[str, Plot]) -> dict[str, ElementTree.Element]:
    """Of each plot, as the page has it."""
    return {name: ElementTree.fromstring(plot_svg(plot, page=True)) for name, plot in plots.items()}


def test_plots_have_names_descriptions_and_ids_of_their_own(
    plots: dict[str, Plot], roots: dict[str, ElementTree.Element]
) -> None:
    seen: set[str] = set()
    for name, plot in plots.items():
        root = roots[name]
        ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        assert len(ids) == len(set(ids))
        assert not seen & set(ids)
        assert all(found.startswith(f"{name}-") for found in ids)
        seen |= set(ids)
        assert root.attrib["role"] == "img"
        title, desc = root[0], root[1]
        assert (title.tag, title.text, title.attrib["id"]) == (
            f"{NAMESPACE}title",
            plot.title,
            root.attrib["aria-labelledby"],
        )
        assert (desc.tag, desc.text, desc.attrib["id"]) == (
            f"{NAMESPACE}desc",
            plot.finding,
            root.attrib["aria-describedby"],
        )
        assert re.search(r"\d", plot.finding), "the alternative text says something in numbers"


def test_references_stay_inside_and_resolve(roots: dict[str, ElementTree.Element]) -> None:
    for root in roots.values():
        ids = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
        for element in root.iter():
            assert element.tag.removeprefix(NAMESPACE) not in ("script", "style", "image", "foreignObject", "metadata")
            for key, value in element.attrib.items():
                assert not key.startswith("on")
                if key.endswith("href"):
                    assert value.removeprefix("#") in ids
                assert set(re.findall(r"url\(#([^)]*)\)", value)) <= ids
                assert "http" not in value


def test_the_page_gives_every_colour(plots: dict[str, Plot], roots: dict[str, ElementTree.Element]) -> None:
    for name, plot in plots.items():
        styles = [value for element in roots[name].iter() for value in element.attrib.values()]
        assert not [value for value in styles if re.search(r"#[0-9a-f]{6}\b", value)], name
        alone = plot_svg(plot, page=False)
        assert "var(" not in alone
        assert set(re.findall(r"#[0-9a-f]{6}\b", alone)) <= {*PALETTE.values(), "#ffffff"}


def test_text_stays_text(roots: dict[str, ElementTree.Element]) -> None:
    root = roots["half-cheetah-8-bit-lava-energy"]
    texts = ["".join(element.itertext()) for element in root.iter(f"{NAMESPACE}text")]
    assert all("font-size: " in element.attrib["style"] for element in root.iter(f"{NAMESPACE}text"))
    assert not any("family" in element.attrib["style"] for element in root.iter(f"{NAMESPACE}text")), "the page's own"
    assert "Loihi 1" in texts
    assert sum(text.endswith("modelled") for text in texts) == 16
    assert sum(text.endswith("measured") for text in texts) == 2


def test_a_raster_keeps_every_spike_as_a_level_stroke(roots: dict[str, ElementTree.Element]) -> None:
    spikes = sample.deployment()["spikes"]
    root = roots["half-cheetah-8-bit-lava-raster"]
    counts = [len(re.findall(r"h[\d.]+", element.attrib["d"])) for element in root.iter(f"{NAMESPACE}path")]
    assert sorted(count for count in counts if count > 10) == sorted(len(layer["time"]) for layer in spikes["layers"])


def test_a_level_stroke_has_the_place_and_length_that_was_drawn(roots: dict[str, ElementTree.Element]) -> None:
    root = roots["half-cheetah-8-bit-lava-raster"]
    path = max(root.iter(f"{NAMESPACE}path"), key=lambda element: len(element.attrib["d"]))
    strokes = re.findall(r"M([-\d.]+) ([-\d.]+)h([\d.]+)", path.attrib["d"])
    widest = max(sample.deployment()["spikes"]["layers"], key=lambda layer: len(layer["time"]))
    x = [float(left) + float(length) / 2 for left, _, length in strokes]
    y = [float(level) for _, level, _ in strokes]
    slope, offset = _line(widest["time"], x)
    assert x == pytest.approx([slope * time + offset for time in widest["time"]], abs=0.02)
    assert [float(length) for _, _, length in strokes] == pytest.approx([0.64 * slope] * len(strokes), abs=0.02)
    slope, offset = _line(widest["neuron"], y)
    assert slope < 0, "neuron 0 lies lowest"
    assert y == pytest.approx([slope * neuron + offset for neuron in widest["neuron"]], abs=0.02)


def _line(given: list[int], found: list[float]) -> tuple[float, float]:
    low, high = given.index(min(given)), given.index(max(given))
    slope = (found[high] - found[low]) / (given[high] - given[low])
    return slope, found[low] - slope * given[low]


def test_hostile_names_are_text() -> None:
    document = sample.full_report(8)
    deployment = document["deployments"][0]
    for layer in (*deployment["spikes"]["layers"], *deployment["backends"]["lava"]["workload"]["layers"]):
        layer["name"] = HOSTILE
    for item in deployment["backends"]["lava"]["energy"]["figures"]:
        item["title"] = HOSTILE
    for run in document["training"]:
        run["title"] = HOSTILE
    deployment["backends"] = {
        (HOSTILE if name == "torch" else name): entry for name, entry in deployment["backends"].items()
    }
    for plot in draw_plots(document):
        text = plot_svg(plot)
        assert "<script" not in text
        assert not list(ElementTree.fromstring(text).iter("script"))


def test_names_are_never_read_as_mathematics() -> None:
    document = sample.report() | {"deployments": [], "training": [sample.training_run("r", 10.0, 5.0)]}
    document["training"][0]["title"] = "$x^2$"
    for plot in draw_plots(document):
        root = ElementTree.fromstring(plot_svg(plot))
        assert "$x^2$" in ["".join(element.itertext()) for element in root.iter(f"{NAMESPACE}text")]

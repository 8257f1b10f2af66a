"""The figure of the learning curves: the same bytes from the same results, and readable where it is drawn."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from returns_support import document, entry, noisy_curve
from support import ROOT

from benchmarks.returns_document import TASKS
from benchmarks.returns_figure import figures, finding
from benchmarks.returns_rows import read_published

PUBLISHED = read_published(ROOT / "benchmarks" / "published_returns.toml")
TOPS = {"inverted-double-pendulum": 9300, "hopper": 3500, "walker2d": 4600, "half-cheetah": 10300, "ant": 5600}
SVG = "{http://www.w3.org/2000/svg}"


def crowded() -> dict:
    """Five seeds of both policies on each task, close to each other and to the published return, some unfinished."""
    counts = {"walker2d": (80, 100), "ant": (97, 50)}
    entries = [entry("ant", curves={5: noisy_curve(30, 3000.0)})]
    for task, top in TOPS.items():
        ours, twin = counts.get(task, (100, 100))
        entries.append(entry(task, curves={s: noisy_curve(ours, top * (0.9 + 0.05 * s), s) for s in range(5)}))
        entries.append(entry(task, "mlp", {s: noisy_curve(twin, top * (0.9 + 0.04 * s), s + 50) for s in range(5)}))
    return document(*entries)


def test_the_same_results_give_the_same_bytes_and_the_dark_one_differs_in_colours_alone() -> None:
    made = document(entry(), entry("ant", "mlp", {0: noisy_curve(40, 10.0)}))
    light, dark = figures(made, PUBLISHED)
    assert (light, dark) == figures(made, PUBLISHED)
    assert light != dark
    colour = re.compile(r"#[0-9a-f]{6}")
    assert colour.sub("#", light) == colour.sub("#", dark)
    assert not re.search(r"\b20\d\d-\d\d", light)  # no time stamp


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2."""
    shades = []
    for colour in (one, other):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        shades.append(0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2])
    return (max(shades) + 0.05) / (min(shades) + 0.05)


def test_every_text_can_be_read_on_its_paper() -> None:
    for svg in figures(document(entry(), entry(group="mlp")), PUBLISHED):
        root = ElementTree.fromstring(svg)
        paper = root.find(f"{SVG}rect")
        assert paper is not None and paper.get("width") == "100%"
        colours = {
            match[1]
            for node in root.iter(f"{SVG}text")
            for match in re.finditer(r"fill: (#\w{6})", node.get("style", ""))
        }
        assert len(colours) >= 4
        assert min(contrast(colour, paper.get("fill", "")) for colour in colours) >= 4.5


def test_each_seed_is_a_line_and_several_have_a_mean_beside() -> None:
    alone, _ = figures(document(entry(curves={0: [(1.0, 0.0)] * 3})), PUBLISHED)
    three, _ = figures(document(entry(curves={s: [(s + 1.0, 0.0)] * 3 for s in range(3)})), PUBLISHED)
    seeds, means = r'<path d="M[^"]*"[^>]*stroke-width: 0.7[^>]*>', r'<path d="M[^"]*"[^>]*stroke-width: 1.9[^>]*>'
    assert [len(re.findall(seeds, svg)) for svg in (alone, three)] == [2, 4]  # one more is in the key
    assert [len(re.findall(means, svg)) for svg in (alone, three)] == [2, 2]


def test_an_unfinished_curve_ends_where_it_is_in_the_axis_of_all_steps() -> None:
    short, _ = figures(document(entry("hopper", curves={0: noisy_curve(50, 3000.0)})), PUBLISHED)
    whole, _ = figures(document(entry("hopper", curves={0: noisy_curve(100, 3000.0)})), PUBLISHED)
    ends = []
    for svg in (short, whole):
        line = re.search(r'<path d="([^"]*)"[^>]*stroke-width: 1.9', svg)
        assert line is not None
        x = [float(value) for value in re.findall(r"[ML]([\d.]+) ", line[1])]
        ends.append((x[0], x[-1]))
    (start, half), (_, full) = ends
    assert (half - start) / (full - start) == pytest.approx(49 / 99, abs=0.01)
    assert "unfinished" in short.partition("</desc>")[2] and "unfinished" not in whole


def test_the_alternative_text_has_the_numbers_of_every_task() -> None:
    made = document(entry(curves={0: [(1.0, 0.0), (3210.4, 0.0)]}), entry("ant", "mlp"))
    text = finding(made, PUBLISHED)
    assert "Hopper-v5: spiking maximum 3,210 (1 seed, unfinished at 20,000 of 1,000,000 steps), best published" in text
    assert "dense ANN maximum" in text.partition("Ant-v5")[2]
    assert all(env in text for env in TASKS.values()) and "9,784 (TABN)" in text
    root = ElementTree.fromstring(figures(made, PUBLISHED)[0])
    assert root.get("role") == "img" and root.findtext(f"{SVG}desc") == text


def test_a_figure_without_any_run_says_so_five_times() -> None:
    light, _ = figures(document(), PUBLISHED)
    assert light.count(">not trained yet<") == 5


def test_no_text_lies_on_another_or_leaves_the_figure_in_a_browser(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on PATH")
    made = [crowded(), document(), document(entry("half-cheetah", curves={0: noisy_curve(100, 9784.0)}))]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium)
        page = browser.new_page()
        for one in made:
            (tmp_path / "figure.svg").write_text(figures(one, PUBLISHED)[0])
            page.goto((tmp_path / "figure.svg").as_uri())
            boxes = page.eval_on_selector_all(
                "text",
                "all => all.map(t => {const b = t.getBoundingClientRect();"
                " return [t.textContent, b.left, b.top, b.right, b.bottom]})",
            )
            width, height = page.evaluate(
                "[document.documentElement.getBoundingClientRect()].map(b => [b.right, b.bottom])[0]"
            )
            assert len(boxes) > 30
            for index, (text, left, top, right, bottom) in enumerate(boxes):
                assert left >= 0 and top >= 0 and right <= width and bottom <= height, text
                for other, left2, top2, right2, bottom2 in boxes[index + 1 :]:
                    apart = left >= right2 - 1 or right <= left2 + 1 or top >= bottom2 - 4 or bottom <= top2 + 4
                    assert apart, f"{text!r} lies on {other!r}"
        browser.close()

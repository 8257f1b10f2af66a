"""report.html in a real browser: drawn, quiet, readable, reachable, printable, and deaf to what its texts ask for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sample

from spikerl_deploy.report.headline import FAIREST
from spikerl_deploy.report.page import write_page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"none of {', '.join(NAMES)} is on PATH")

HOSTILE = (
    "</title></style></svg><script>window.owned=1</script><img src='http://192.0.2.1/x.png' onerror='window.owned=1'>"
    '"\'><a href="javascript:window.owned=1">{{7*7}} ${1} 🦾 \u202e'
)


NOTE = "A clause as long as those in the notes of a real report are; " * 6


def hostile_document() -> dict[str, Any]:
    """A full report whose texts try to break out of text."""
    document = sample.full_report(8)
    document |= {"title": f"HalfCheetah {HOSTILE}", "warnings": [HOSTILE]}
    deployment = document["deployments"][0]
    deployment["title"] = HOSTILE
    deployment["policy"]["file"] = HOSTILE
    energy = deployment["backends"]["lava"]["energy"]
    for item in (*energy["figures"], *energy["baselines"]):
        item |= {"title": HOSTILE, "sources": [HOSTILE], "note": HOSTILE}
    for layer in deployment["spikes"]["layers"]:
        layer["name"] = HOSTILE
    for run in document["training"]:
        run["title"] = HOSTILE
    document["conformance"][0]["title"] = HOSTILE
    return document


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of a full report and of one with hostile texts."""
    folder = tmp_path_factory.mktemp("pages")
    documents = {"full": sample.full_report(8, None), "hostile": hostile_document()}
    documents["full"]["deployments"][1] |= {"spikes": None, "membranes": None, "firing_rates": []}  # sooner drawn
    for deployment in documents["full"]["deployments"]:
        energy = deployment["backends"]["lava"]["energy"]
        energy["break_even"][0]["id"] = FAIREST  # for the fifth card
        energy["figures"][0]["note"] = NOTE
    for row in documents["full"]["inference"][0]["rows"]:
        row["note"] = NOTE
    for name, document in documents.items():
        write_page(document, folder / f"{name}.html")
    return {name: (folder / f"{name}.html").as_uri() for name in documents}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A tab that records what a page says and asks for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.said, opened.asked = [], []
    opened.on("console", lambda message: opened.said.append(message.text))
    opened.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.on("request", lambda request: opened.asked.append(request.url))
    yield opened
    context.close()


@pytest.mark.parametrize("name", ["full", "hostile"])
def test_the_page_is_drawn_in_silence_and_without_a_network(tab: Any, pages: dict[str, str], name: str) -> None:
    tab.goto(pages[name])
    assert tab.said == []
    assert tab.asked == [pages[name]]
    boxes = tab.eval_on_selector_all(
        "figure svg", "all => all.map(e => [e.getBoundingClientRect().width, e.getBoundingClientRect().height])"
    )
    assert len(boxes) == tab.locator("figure").count() > 10
    assert all(width > 200 and height > 80 for width, height in boxes)
    painted = tab.eval_on_selector_all("figure svg", "all => all.map(e => e.querySelectorAll('path, use').length)")
    assert min(painted) > 0
    links = tab.eval_on_selector_all(
        "a[href]", "all => all.map(e => [e.getAttribute('href'), !!document.getElementById(e.hash.slice(1))])"
    )
    assert all(href.startswith("#") and found for href, found in links)


def test_texts_of_a_document_do_nothing(tab: Any, pages: dict[str, str]) -> None:
    tab.goto(pages["hostile"])
    assert tab.evaluate("window.owned") is None
    assert tab.locator("script, img, iframe").count() == 0
    assert HOSTILE in tab.locator("h1").inner_text()
    assert HOSTILE in tab.title()
    tab.goto(pages["hostile"] + "#training")
    assert tab.evaluate("document.querySelector(':target').id") == "training"


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["full", "hostile"])
def test_the_page_never_scrolls_sideways(tab: Any, pages: dict[str, str], name: str, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 800})
    tab.goto(pages[name])
    tab.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    wide = tab.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1"
        " && !e.closest('.scroll, .canvas')).map(e => e.tagName)"
    )
    assert wide == []


@pytest.mark.parametrize(("width", "rows"), [(360, [1] * 5), (1100, [5])])
def test_headline_cards_stand_in_one_row_where_there_is_room(
    tab: Any, pages: dict[str, str], width: int, rows: list[int]
) -> None:
    tab.set_viewport_size({"width": width, "height": 800})
    tab.goto(pages["full"])
    tops = (
        tab.locator(".headline").first.locator("div").evaluate_all("all => all.map(e => e.getBoundingClientRect().top)")
    )
    assert [tops.count(top) for top in sorted(set(tops))] == rows


def test_rows_of_tables_can_be_seen_whole(tab: Any, pages: dict[str, str]) -> None:
    tab.goto(pages["full"])
    tab.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    boxes = tab.eval_on_selector_all(
        ".scroll",
        "all => all.map(e => [e.clientHeight, Math.max(...[...e.querySelectorAll('tr')].map(r => r.clientHeight)),"
        " e.scrollHeight, !!e.closest('details')])",
    )
    assert all(row < box / 2 or inner <= box for box, row, inner, _ in boxes)
    assert all(row < 250 for _, row, _, _ in boxes), "a long note has room to the side"
    bare = [(box, inner) for box, _, inner, folded in boxes if not folded]
    assert len(bare) >= 5
    assert all(inner <= box for box, inner in bare)


def test_training_runs_fit_the_page(tab: Any, pages: dict[str, str]) -> None:
    tab.set_viewport_size({"width": 1200, "height": 800})
    tab.goto(pages["full"])
    box = tab.locator("#training > .scroll").first
    assert "Training runs" in box.inner_text()
    assert box.evaluate("e => e.scrollWidth - e.clientWidth") == 0


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_text_of_plots_is_large_enough_to_read(tab: Any, pages: dict[str, str], width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 800})
    tab.goto(pages["full"])
    sizes = tab.eval_on_selector_all(
        "figure svg text",
        "all => all.map(e => { const s = e.ownerSVGElement; return parseFloat(getComputedStyle(e).fontSize)"
        " * s.getBoundingClientRect().width / s.viewBox.baseVal.width; })",
    )
    assert min(sizes) > 9.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(tab: Any, pages: dict[str, str], scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    tab.emulate_media(color_scheme=scheme)
    tab.goto(pages["full"])
    tab.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    found = axe.Axe().run(tab).response["violations"]
    assert [(item["id"], item["nodes"][0]["html"][:200]) for item in found] == []


BROKEN_WORDS = """() => [...document.querySelectorAll('thead th')].flatMap(heading => {
  const walker = document.createTreeWalker(heading, NodeFilter.SHOW_TEXT), broken = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode())
    for (const word of node.data.matchAll(/[a-z]+/gi)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1) broken.push(word[0]);
    }
  return broken;
})"""


def contrast(first: str, second: str) -> float:
    """WCAG 2.2 contrast of two colours as the browser computes them: rgb(r, g, b)."""

    def luminance(colour: str) -> float:
        parts = [float(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_of_plots_stand_out(tab: Any, pages: dict[str, str], scheme: str) -> None:
    tab.emulate_media(color_scheme=scheme)
    tab.goto(pages["full"])
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    texts = tab.eval_on_selector_all("figure svg text", "all => [...new Set(all.map(e => getComputedStyle(e).fill))]")
    assert len(texts) >= 2
    assert {colour: contrast(colour, paper) for colour in texts if contrast(colour, paper) < 4.5} == {}
    strokes = tab.eval_on_selector_all(
        "figure svg :not(defs) > :is(path, use):is([style*='var(--blue)'], [style*='var(--orange)'])",
        "all => [...new Set(all.flatMap(e => ['fill', 'stroke']"  # a hollow mark names no fill
        ".filter(k => e.getAttribute('style').includes(`${k}: var(`)).map(k => getComputedStyle(e)[k])))]",
    )
    marks = [colour for colour in strokes if colour.startswith("rgb(")]
    assert len(marks) >= 2
    assert all(contrast(colour, paper) >= 3 for colour in marks)


def test_tables_open_and_are_reached_by_keyboard(tab: Any, pages: dict[str, str]) -> None:
    tab.goto(pages["full"])
    first = tab.locator("figure details").first
    assert not first.locator("table").is_visible()
    first.locator("summary").focus()
    tab.keyboard.press("Enter")
    assert first.locator("table").is_visible()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "scroll"


def test_paper_shows_the_tables_black_on_white(tab: Any, pages: dict[str, str], tmp_path: Path) -> None:
    tab.emulate_media(color_scheme="dark", media="print")
    tab.goto(pages["full"])
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill") != "rgb(230, 235, 241)"
    tables = tab.locator("figure details table")
    assert tables.count() > 10
    assert all(table.is_visible() for table in tables.all())
    tab.set_viewport_size({"width": 680, "height": 900})  # 180 mm
    right = "all => Math.max(...all.map(e => e.getBoundingClientRect().right))"
    assert tab.eval_on_selector_all("table, figure svg", right) <= 681
    assert tab.evaluate(BROKEN_WORDS) == []
    tab.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    pdf = (tmp_path / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") >= 5

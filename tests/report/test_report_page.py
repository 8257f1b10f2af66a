"""report.html as text: self-contained, whole, safe, small and quickly made."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import sample
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from page_reader import Reader, read_page

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.report.document import validate
from spikerl_deploy.report.markup import Markup, join, tag
from spikerl_deploy.report.page import page, write_page
from spikerl_deploy.report.plots import draw_plots
from spikerl_deploy.report.table import cell_text, number, printable
from spikerl_deploy.report.tables_overview import training_table

HOSTILE = "</title></script><script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&amp; 🦾\x00"


@pytest.fixture(scope="module")
def full() -> tuple[dict[str, Any], str, Reader]:
    document = sample.full_report(8, None)
    text = page(document)
    return document, text, read_page(text)


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "<b>&", Markup("<i>"), None, class_="a\"'<", hidden=True, id=None) == (
        '<p class="a&quot;&#x27;&lt;" hidden>&lt;b&gt;&amp;<i></p>'
    )
    assert tag("meta", http_equiv="x") == '<meta http-equiv="x">'
    assert join("<", tag("br")) == "&lt;<br>"


def test_ids_are_unique_and_every_link_resolves(full: tuple[dict[str, Any], str, Reader]) -> None:
    _, _, reader = full
    assert len(reader.ids) == len(set(reader.ids))
    links = [attributes["href"] for _, attributes in reader.elements if attributes.get("href")]
    assert len(links) > 10
    assert all(str(link).startswith("#") and str(link)[1:] in reader.ids for link in links)
    for _, attributes in reader.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name) is None or attributes[name] in reader.ids


def test_the_page_holds_no_script_and_asks_for_nothing(full: tuple[dict[str, Any], str, Reader]) -> None:
    _, text, reader = full
    for name, attributes in reader.elements:
        assert name not in ("script", "iframe", "object", "embed", "link", "base", "form", "img")
        assert not any(key.startswith("on") or key in ("src", "srcset", "action") for key in attributes)
    assert "@import" not in text
    assert "url(http" not in text
    policies = [a["content"] for name, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert str(policies[0]).startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert ("html", {"lang": "en"}) in reader.elements


def test_every_plot_is_in_its_section_with_its_tables(full: tuple[dict[str, Any], str, Reader]) -> None:
    document, _, reader = full
    plots = draw_plots(document)
    names = [attributes.get("id") for name, attributes in reader.elements if name == "figure"]
    assert sorted(map(str, names)) == sorted(plot.id for plot in plots)
    assert sum(name == "svg" for name, _ in reader.elements) == len(plots)
    assert sum(name == "details" for name, _ in reader.elements) >= sum(len(plot.tables) for plot in plots)
    shown = {tuple(row) for row in reader.rows}
    for plot in plots:
        for table in plot.tables:
            assert {tuple(cell_text(cell) for cell in row) for row in table.rows} <= shown


def test_headline_and_what_is_not_measured_are_said(full: tuple[dict[str, Any], str, Reader]) -> None:
    document, _, reader = full
    words = "".join(reader.texts)
    for deployment in document["deployments"]:
        entry = deployment["backends"]["lava"]
        assert number(entry["mean_return"]) in words
        assert f"{deployment['comparison']['retention']:.3f}" in words
        assert number(entry["workload"]["per_inference"]["synaptic_operations"]) in words
    assert "encoder and decoder on the host; input and output of the chip; training" in words
    assert "Energy of this policy on a GPU: not measured." in words
    assert "Energy not measured: no meter." in words
    assert document["warnings"][0] in words
    assert document["deployments"][0]["policy"]["sha256"] in words
    assert "arXiv 2403.08928" in words


def test_ids_in_the_heads_of_tables_can_break_at_their_slashes(full: tuple[dict[str, Any], str, Reader]) -> None:
    document, text, _ = full
    name = document["deployments"][0]["backends"]["lava"]["energy"]["sweep"]["figures"][0]["id"]
    assert f">{name.replace('/', '/<wbr>')}, low <small>" in text


def test_a_gpu_that_was_measured_is_not_said_to_be_unmeasured() -> None:
    document = sample.report() | {"inference": [sample.inference()]}
    assert "not measured" in page(document, [])
    for row in document["inference"][0]["rows"]:
        row |= {"device": "cuda", "kind": "measured"}
    assert "not measured" not in page(document, [])


def test_training_energy_of_the_policy_itself_is_told() -> None:
    document = sample.report()
    intensity = {"value": 369.0, "unit": "g CO2eq/kWh", "source": "mean of USA"}
    energy = {"joule": 2510.0, "kind": "modelled", "kg_co2eq": 0.000257, "intensity": intensity, "seeds": 1}
    assert "Training of this policy" not in page(document, [])
    document["deployments"][0]["policy"]["provenance"]["origin"] = {"training_energy": energy}
    words = "".join(read_page(page(document, [])).texts)
    assert "Training of this policy: 2.51 kJ (modelled), 0.257 g CO2eq at 369 g CO2eq/kWh (mean of USA)." in words


figures = st.lists(
    st.tuples(st.floats(0, 1e9), st.floats(0, 1e9), st.text(max_size=30)), min_size=1, max_size=5
)  # fmt: skip


@settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),  # an example takes a second: shrinking would take minutes
)
@given(figures, st.text(max_size=40), st.sampled_from([1, 2, 5]), st.sampled_from([None, 4, 8]))
def test_every_figure_of_any_document_is_in_a_table(
    drawn: list[tuple[float, float, str]], title: str, seeds: int, bits: int | None
) -> None:
    deployment = sample.deployment(bits, seeds=seeds) | {"spikes": None, "membranes": None, "title": title}
    energy = deployment["backends"]["lava"]["energy"]
    for part in ("figures", "baselines"):
        energy[part] = [
            sample.figure(f"x{index}/synops", name, "what", *sorted((low, high)), "derived", "source")
            for index, (low, high, name) in enumerate(drawn)
        ]
    reader = read_page(page(sample.report(deployment, title=title)))
    assert len(reader.ids) == len(set(reader.ids))
    for item in (*energy["figures"], *energy["baselines"]):
        wanted = [number(item["low"]), number(item["high"]), "modelled"]
        name = printable(item["title"]).replace("\r", "\n")
        assert any(row[2:5] == wanted and row[0].startswith(name) for row in reader.rows)
    returns = deployment["backends"]["lava"]["returns"]
    assert all(any(row[1] == number(value) for row in reader.rows if len(row) > 1) for value in returns)


@pytest.mark.parametrize("name", ["conformance", "quantization", "training"])
def test_no_deployment_takes_the_name_of_a_part_whose_plots_it_would_share(name: str) -> None:
    document = sample.full_report(8)
    deployment = document["deployments"][0]
    deployment["id"] = f"{name}-run"
    validate(document, "report.json")
    deployment["id"] = name
    with pytest.raises(SpikerlError, match=rf"at \$\.deployments\[0\]\.id: \"{name}\", where not "):
        validate(document, "report.json")


def test_a_training_run_is_named_with_its_environment_once() -> None:
    document = sample.full_report(8)
    first, second = document["training"][:2]
    first["title"] = f"{first['env']}, a run"
    second["title"] = "another"
    names = [row[0] for row in training_table(document["training"]).rows]
    assert names[:2] == [first["title"], f"another, {second['env']}"]


def test_hostile_text_stays_text() -> None:
    document = sample.full_report(8)

    def spoil(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: spoil(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [spoil(item, key) for item in value]
        kept = ("id", "schema", "model", "backend", "baseline", "run", "status", "kind", "quantity", "sha256", "device")
        return value + HOSTILE if isinstance(value, str) and key not in kept else value

    text = page(spoil(document))
    assert "<script" not in text
    assert "<img" not in text
    reader = read_page(text)
    assert not any(name in ("script", "img") for name, _ in reader.elements)
    assert "document.title='owned'" in "".join(reader.texts)


def test_a_report_of_ten_episodes_is_small_and_quickly_made(tmp_path: Path) -> None:
    document = sample.report(sample.deployment(seeds=10, rate=0.4))  # rates high enough to fill the rasters
    path, began = tmp_path / "report.html", time.process_time()
    write_page(document, path)
    assert time.process_time() - began < 10
    assert path.stat().st_size < 2_000_000
    with pytest.raises(SpikerlError, match="not overwritten"):
        write_page(document, path)


def test_the_page_is_a_function_of_the_document() -> None:
    document = sample.report(sample.deployment() | {"spikes": None, "membranes": None})
    assert page(json.loads(json.dumps(document))) == page(document)

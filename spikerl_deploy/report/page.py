"""report.html: one self-contained page, made from the document alone. No script, no network, light, dark and paper."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from spikerl_deploy.files import write_text
from spikerl_deploy.report.markup import Markup, join, tag
from spikerl_deploy.report.page_parts import bare_table, figures, headline_list
from spikerl_deploy.report.page_sections import (
    conformance_section,
    deployment_section,
    inference_section,
    provenance_section,
    training_section,
)
from spikerl_deploy.report.plots import draw_plots
from spikerl_deploy.report.plots.plot import Plot
from spikerl_deploy.report.table import printable
from spikerl_deploy.report.tables_overview import summary_table

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def write_page(document: dict[str, Any], path: Path, force: bool = False, plots: Sequence[Plot] | None = None) -> None:
    """Write the page of a report.

    Args:
        document: of the layout `spikerl.report/2`, validated.
        plots: those of the document, where they are drawn already.

    Raises:
        SpikerlError: the file is there and `force` is false, or it cannot be written.
    """
    write_text(path, page(document, plots), force)


def page(document: dict[str, Any], plots: Sequence[Plot] | None = None) -> str:
    """The page as text."""
    drawn = draw_plots(document) if plots is None else list(plots)
    document = printable(document)
    sections = [section for section in _sections(document, drawn) if section is not None]
    style = files("spikerl_deploy").joinpath("report/page.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=f"spikerl {_version(document)}"),
        tag("title", document["title"]),
        tag("style", Markup(style)),
    )
    body = tag(
        "body",
        tag("a", "To the content", href="#content", class_="skip"),
        _header(document),
        _contents(sections, drawn if len(document["deployments"]) == 1 else ()),
        tag("main", *(part for _, _, part in sections), id="content"),
        tag("footer", tag("p", f"Made by spikerl {_version(document)} from report.json, which holds every number.")),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _version(document: dict[str, Any]) -> str:
    return str(document["manifest"].get("versions", {}).get("spikerl-deploy", ""))


def _header(document: dict[str, Any]) -> Markup:
    """Title, what a reader must know before believing, and the numbers of a single deployment."""
    deployments = document["deployments"]
    created = str(document["manifest"].get("created", ""))
    warnings = document["warnings"]
    return tag(
        "header",
        tag("p", "spikerl report", tag("span", created, class_="created") if created else None, class_="kicker"),
        tag("h1", document["title"]),
        headline_list(deployments[0]) if len(deployments) == 1 else None,
        tag(
            "aside",
            tag("h2", "Before you believe it", id="warnings"),
            tag("ul", *(tag("li", warning) for warning in warnings)),
            aria_labelledby="warnings",
            class_="warnings",
        )
        if warnings
        else None,
    )


def _contents(sections: Sequence[tuple[str, str, Markup]], plots: Sequence[Plot]) -> Markup:
    """Links to the sections; to the plots of a deployment that is alone as well."""
    links = []
    for anchor, title, _ in sections:
        links.append((anchor, title))
        links += [(plot.id, plot.title) for plot in plots if anchor == f"deployment-{plot.place}"]
    entries = (tag("li", tag("a", title, href=f"#{anchor}")) for anchor, title in links)
    return tag("nav", tag("h2", "Contents", id="contents"), tag("ol", *entries), aria_labelledby="contents")


def _sections(document: dict[str, Any], plots: Sequence[Plot]) -> list[tuple[str, str, Markup] | None]:
    """Anchor, title and markup of each section that has something to say."""
    deployments = document["deployments"]
    parts: list[tuple[str, str, Markup] | None] = []
    if len(deployments) > 1:
        parts.append(_section("summary", "Summary", bare_table(summary_table(deployments))))
    widths = [plot for plot in plots if plot.place == "quantization"]
    if widths:
        parts.append(_section("widths", "Quantization", figures(widths)))
    for deployment in deployments:
        own = [plot for plot in plots if plot.place == deployment["id"]]
        body = deployment_section(deployment, own, document["inference"], with_headline=len(deployments) > 1)
        parts.append(_section(f"deployment-{deployment['id']}", deployment["title"], body))
    if document["conformance"]:
        own = [plot for plot in plots if plot.place == "conformance"]
        parts.append(_section("conformance", "Conformance", conformance_section(document["conformance"], own)))
    if document["inference"]:
        parts.append(_section("inference", "Inference in torch", inference_section(document["inference"])))
    if document["training"]:
        own = [plot for plot in plots if plot.place == "training"]
        body = training_section(document["training"], document["speedups"], own)
        parts.append(_section("training", "Training", body))
    parts.append(_section("provenance", "Provenance", provenance_section(document)))
    return parts


def _section(anchor: str, title: str, body: Markup) -> tuple[str, str, Markup]:
    heading = tag("h2", title, id=f"{anchor}-heading")
    return anchor, title, tag("section", heading, join(body), id=anchor, aria_labelledby=f"{anchor}-heading")

"""A plot as SVG: text stays text, ids are its own, nothing is referred to outside, and it says what it shows."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from spikerl_deploy.report.plots.plot import Plot
from spikerl_deploy.report.plots.style import PALETTE, drawing

SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_LONG = re.compile(r"-?\d+\.\d{2,}")
_COMMAND = re.compile(r"\s*([A-Za-z])\s*")
_LEVEL = re.compile(r"M(?P<x>[-\d.]+) (?P<y>[-\d.]+)L(?P<end>[-\d.]+) (?P=y)(?![\d.])")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT = re.compile(r"font: (?:(?P<style>italic|oblique) )?(?:(?P<weight>bold|\d{3}) )?(?P<size>[\d.]+)px [^;]*")
_FAMILY = re.compile(r"font-family: [^;]*;? ?")
_SYSTEM = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def plot_svg(plot: Plot, page: bool = False) -> str:
    """The SVG element of a plot, with its title and its finding as accessible name and description.

    Args:
        page: for report.html, whose style sheet gives fonts and colours; otherwise a file that stands alone.
    """
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with drawing():
        plot.figure.savefig(stream, format="svg", metadata=nothing)
    root = ElementTree.fromstring(stream.getvalue())
    _compact(root, plot.id)
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib = {
        "xmlns": SVG,
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{plot.id}-title",
        "aria-describedby": f"{plot.id}-finding",
    }
    if not page:
        root.attrib |= {"width": f"{width}pt", "height": f"{height}pt", "font-family": _SYSTEM}
    root.attrib["style"] = "stroke-linejoin: round; stroke-linecap: butt"
    for place, (name, text) in enumerate((("title", plot.title), ("desc", plot.finding))):
        element = ElementTree.Element(name, id=f"{plot.id}-{'title' if name == 'title' else 'finding'}")
        element.text = text
        root.insert(place, element)
    text = ElementTree.tostring(root, encoding="unicode")
    return _page_colours(text) if page else text


def _compact(root: ElementTree.Element, prefix: str) -> None:
    """Drop matplotlib's style sheet and unused ids, make the others the plot's own, shorten numbers and fonts."""
    for parent in root.iter():
        for child in list(parent):
            if child.tag.endswith("}style"):
                parent.remove(child)
    used = set()
    for element in root.iter():
        used |= {name for value in element.attrib.values() for name in _REFERENCE.findall(value)}
        if _XLINK in element.attrib:
            used.add(element.attrib[_XLINK].removeprefix("#"))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = element.attrib
        if _XLINK in attributes:
            attributes["href"] = f"#{prefix}-{attributes.pop(_XLINK).removeprefix('#')}"
        if "id" in attributes:
            name = attributes.pop("id")
            if name in used:
                attributes["id"] = f"{prefix}-{name}"
        for key, value in attributes.items():
            if key in ("d", "x", "y", "transform", "x1", "x2", "y1", "y2"):
                value = _LONG.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), value)
                if key == "d":
                    value = _LEVEL.sub(_level, _COMMAND.sub(r"\1", value))
            elif key == "style":
                value = _FAMILY.sub("", _FONT.sub(_font, value))
            attributes[key] = _REFERENCE.sub(rf"url(#{prefix}-\1)", value)


def _level(match: re.Match[str]) -> str:
    """A level stroke by its length: shorter, and there are tens of thousands in a raster."""
    length = f"{float(match['end']) - float(match['x']):.2f}".rstrip("0").rstrip(".")
    return f"M{match['x']} {match['y']}h{length}"


def _font(match: re.Match[str]) -> str:
    """Size and weight without the family, which the page or the root element gives."""
    weight = f"; font-weight: {match['weight']}" if match["weight"] else ""
    return f"font-size: {match['size']}px{weight}"


def _page_colours(text: str) -> str:
    """Colours of the palette become variables of the page; only within tags, never in the texts."""
    for name, colour in PALETTE.items():
        text = re.sub(rf"(?<=: ){colour}(?=[;\"])", f"var(--{name})", text)
    return text

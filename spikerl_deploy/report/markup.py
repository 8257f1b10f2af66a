"""HTML that cannot be broken by what is put into it: text is escaped unless it is markup already."""

from __future__ import annotations

from html import escape

VOID = frozenset({"meta", "br", "link", "hr"})


class Markup(str):
    """Text that is HTML; everything else is escaped."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: str | bool | None) -> Markup:
    """An element. A trailing or inner underscore of an attribute's name is none, or a hyphen: class_, aria_label.

    Attributes that are None or False are left out, True stands without a value; children that are None are left out.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        written = key.rstrip("_").replace("_", "-")
        parts.append(f" {written}" if value is True else f' {written}="{escape(str(value))}"')
    parts.append(">")
    if name in VOID:
        return Markup("".join(parts))
    return Markup("".join(parts) + join(*children) + f"</{name}>")


def join(*children: str | None) -> Markup:
    """Children one after another, escaped where they are text."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else escape(child, quote=False)
            for child in children
            if child is not None
        )
    )

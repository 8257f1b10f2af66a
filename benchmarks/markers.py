"""Text between two markers of a Markdown file, for tables that a command writes."""

from __future__ import annotations

from pathlib import Path

from spikerl_deploy.errors import SpikerlError


def between(path: Path, begin: str, end: str, text: str) -> str:
    """The file's text with a new one between the markers.

    Raises:
        SpikerlError: no such file, or the markers are not in it once each, in this order.
    """
    if not path.is_file():
        raise SpikerlError(f"there is no '{path}' to write the tables to", "give the folder of the project")
    whole = path.read_text(encoding="utf-8")
    if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(begin) > whole.index(end):
        raise SpikerlError(f"'{path}' has not once each, in this order: {begin} and {end}", "put both into it")
    before, _, rest = whole.partition(begin)
    return f"{before}{begin}\n{text}{end}{rest.partition(end)[2]}"

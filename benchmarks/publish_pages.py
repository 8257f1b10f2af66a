"""Write the pages for people again from the cards of a folder: python -m benchmarks.publish_pages policies"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.markers import between
from spikerl_deploy.errors import SpikerlError, error_lines
from spikerl_deploy.files import write_text
from spikerl_deploy.model_card import TITLE, card_markdown, overview_markdown, policies_table, read_card

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- policies: begin (python -m benchmarks.publish_pages) -->", "<!-- policies: end -->"


def check_pages(folder: Path) -> list[dict[str, Any]]:
    """The cards of a folder whose pages can be written, one not there yet included.

    Raises:
        SpikerlError: a card is no card, or README.md of the folder is no overview of policies.
    """
    readme = folder / "README.md"
    if readme.exists() and not readme.read_text(encoding="utf-8", errors="replace").startswith(f"{TITLE}\n"):
        raise SpikerlError(f"'{readme}' is no overview of policies and is not replaced", "choose another folder")
    return [read_card(path) for path in sorted(folder.glob("*.json"))]


def write_pages(folder: Path) -> None:
    """NAME.md of every card, and README.md of all; of the project's own policies also the table in its README.

    Raises:
        SpikerlError: as `check_pages`, there is no card, or the project's README has lost its markers.
    """
    cards = check_pages(folder)
    if not cards:
        raise SpikerlError(f"no card of a policy lies in '{folder}'", "give the folder of the policies")
    for card in cards:
        write_text(folder / f"{card['name']}.md", card_markdown(card))
    write_text(folder / "README.md", overview_markdown(cards))
    if folder.resolve() == ROOT / "policies":
        write_text(ROOT / "README.md", between(ROOT / "README.md", BEGIN, END, policies_table(cards, "policies/")))


def main(given: list[str]) -> int:
    """The command; its exit codes are those of `spikerl`."""
    try:
        write_pages(Path(given[0]) if given else ROOT / "policies")
    except SpikerlError as error:
        print(error_lines(error.message, error.hint), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

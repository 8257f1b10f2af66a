"""Write the pages for people again from the cards of a folder: python -m benchmarks.publish_pages policies"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.markers import between
from spikerl_deploy.files import write_text
from spikerl_deploy.model_card import card_markdown, overview_markdown, policies_table, read_card

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- policies: begin (python -m benchmarks.publish_pages) -->", "<!-- policies: end -->"


def write_pages(folder: Path) -> None:
    """NAME.md of every card, and README.md of all; of the project's own policies also the table in its README.

    Raises:
        SpikerlError: a card is no card, or the project's README has lost its markers.
    """
    cards = [read_card(path) for path in sorted(folder.glob("*.json"))]
    for card in cards:
        write_text(folder / f"{card['name']}.md", card_markdown(card))
    write_text(folder / "README.md", overview_markdown(cards))
    if folder.resolve() == ROOT / "policies":
        write_text(ROOT / "README.md", between(ROOT / "README.md", BEGIN, END, policies_table(cards, "policies/")))


if __name__ == "__main__":
    write_pages(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "policies"))

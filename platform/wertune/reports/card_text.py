"""A card as Markdown with sections that can be renewed, as an HTML page, and as short as a database wants it."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

from wertune.reports.html_page import page

if TYPE_CHECKING:
    from wertune.tracking.versions import VersionCard

MAX_DESCRIPTION_CHARACTERS = 5000  # of a version's own page, that a database keeps
INTERVALS = "In brackets: 95 % confidence intervals by a bootstrap over speakers, or over clips where speakers are few."


def renewed(card: str, sections: Mapping[str, str]) -> str:
    """The card with these sections' texts by their headings; one that it lacks comes to its end."""
    head, *parts = re.split(r"^## (.+)\n", card, flags=re.MULTILINE)
    found = {**dict(zip(parts[::2], parts[1::2], strict=True)), **sections}
    return "\n\n".join([head.strip(), *(f"## {title}\n\n{text.strip()}" for title, text in found.items())]) + "\n"


def shortened(card: str, characters: int, link: str) -> str:
    """The card's first whole sections within `characters`, with a link to all of it."""
    room = characters - len(link) - 2
    if len(card) <= room:
        return f"{card}\n{link}"
    whole = card[:room].rpartition("\n## ")[0] or card[:room]
    return f"{whole.rstrip()}\n\n{link}"


def write_card(place: "VersionCard", card: str) -> None:
    """Writes a card in Markdown there, as its page and its beginning too."""
    beginning = shortened(card, MAX_DESCRIPTION_CHARACTERS, f"[The whole card]({place.ui_path})")
    place.write(card, card_page(f"{place.name} version {place.version}", card), beginning)


def card_page(title: str, card: str) -> str:
    """The card as an HTML file that needs nothing else; markup in its texts stays text."""
    return page(title, MarkdownIt("commonmark", {"html": False}).enable("table").render(card))

"""HTML files that need nothing else: templates of `pages/`, filled so that no text in them can become markup."""

import base64
import hashlib
import json
import re
from html import escape
from pathlib import Path
from typing import Any

PAGES = Path(__file__).parent / "pages"
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def fill(template: str, **parts: str) -> str:
    """The template with each `{{name}}` replaced, once: what is put in is not looked through again."""
    return _SLOT.sub(lambda slot: parts[slot[1]], template)


def page(title: str, body: str, style: str = "", script: str = "") -> str:
    """A document with the common style, then `style`, and a script that alone may run; nothing is fetched."""
    scripts = template("theme.js") + script
    digest = base64.b64encode(hashlib.sha256(scripts.encode()).digest()).decode()
    return fill(
        template("page.html"),
        title=escape(title),
        style=template("page.css") + style,
        body=body,
        script=scripts,
        script_source=f"'sha256-{digest}'",
    )


def template(name: str) -> str:
    """A file of `pages/`."""
    return (PAGES / name).read_text(encoding="utf-8")


def json_block(name: str, value: Any) -> str:
    """`value` as JSON in a script element with this id; no text in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")
    return f'<script type="application/json" id="{escape(name)}">{text}</script>'

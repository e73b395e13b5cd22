"""HTML files that need nothing else: templates in which no text can become markup, but where `safe` says so."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

PAGES = Path(__file__).parent / "pages"


def rendered(template: Path, **values: Any) -> str:
    """The template with its values, each escaped; templates beside it may be imported."""
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(values)


def page(title: str, body: str, style: str = "", script: str = "") -> str:
    """A document of markup with the common style, then `style`, and a script that alone may run; nothing is fetched."""
    scripts = resource("theme.js") + script
    digest = base64.b64encode(hashlib.sha256(scripts.encode()).digest()).decode()
    styles = resource("page.css") + style
    return rendered(PAGES / "page.html", title=title, style=styles, body=body, script=scripts, digest=digest)


def resource(name: str) -> str:
    """A file of `pages/` as it stands: a style or a script."""
    return (PAGES / name).read_text(encoding="utf-8")


def embedded_json(value: Any) -> str:
    """JSON for a script element: no text in it can end the element or open a comment."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")

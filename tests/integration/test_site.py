"""The documentation is built strictly, asks nothing of other hosts, and has every command, key, gate and figure."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pytest

from wergate.__main__ import cli as wergate
from wergate.gate_kinds import AnyGate
from wertune.__main__ import cli as wertune
from wertune.config import ProjectConfig, flatten

ROOT = Path(__file__).resolve().parents[2]
LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}
WRITTEN_BY_HAND = (
    "tutorial.md",
    "method.md",
    "index.md",
    *(f"howto/{p.name}" for p in (ROOT / "docs/howto").iterdir()),
)
MEASURED = re.compile(r"\d (?:%|points|times|clips/s|GB|MB)(?=\W)|\d+ of \d+\b")
MADE_BY = re.compile(r"`(?:make|wertune|pytest|mlflow run)[^`]*`|arXiv|benchmarks\.md|ICASSP")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class _Loaded(HTMLParser):
    """Addresses that a browser loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in LOADED and values.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(values.get(LOADED[tag]) or "")


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 18
    for page in pages:
        loaded = _Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert [each for each in loaded.found if re.match(r"(https?:)?//", each)] == [], page
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", styles)


@pytest.mark.parametrize("tool", [wertune, wergate], ids=["wertune", "wergate"])
def test_every_command_is_in_the_reference(site: Path, tool: Any) -> None:
    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for name in tool.list_commands(None):
        for parameter in tool.get_command(None, name).params:
            assert all(option in text for option in parameter.opts if option.startswith("--")), (name, parameter.name)


def test_every_key_of_a_project_is_in_the_reference(site: Path) -> None:
    text = (site / "reference" / "configuration.html").read_text(encoding="utf-8")
    values = {"name": "n", "base_model": "b", "data": dict.fromkeys(("train", "validation", "test"), "x")}
    keys = flatten(ProjectConfig.model_validate(values).model_dump())
    assert [key for key in keys if f"<code>{key}</code>" not in text] == []


def test_every_gate_is_in_the_reference(site: Path) -> None:
    text = (site / "reference" / "gates.html").read_text(encoding="utf-8")
    kinds = [kind.model_fields["kind"].default for kind in get_args(get_args(AnyGate)[0])]
    assert [kind for kind in kinds if f'id="{kind}"' not in text] == []


def test_the_public_modules_are_told_from_their_docstrings(site: Path) -> None:
    text = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert 'id="wertune.metrics.EditCounts.rate"' in text
    assert "WER of words, CER of characters." in text


@pytest.mark.parametrize("name", WRITTEN_BY_HAND)
def test_a_measured_figure_names_what_makes_it(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    for paragraph in re.split(r"\n\s*\n|\n- ", prose):
        assert not MEASURED.search(paragraph) or MADE_BY.search(paragraph), f"{name}: {paragraph}"

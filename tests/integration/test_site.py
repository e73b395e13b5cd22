"""The documentation is built strictly, asks nothing of other hosts, and has every command, key, gate and figure."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

import pytest
from tests.support.places import ROOT

from wergate.__main__ import cli as wergate
from wergate.gates.kinds import AnyGate
from wertune.__main__ import cli as wertune
from wertune.base.config import ProjectConfig, flatten

LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}
HANDS = (
    *("tutorial", "scaling", "experiments", "method", "metrics", "index"),
    *("architecture", "environments", "faults", "gates", "security"),
)
WRITTEN_BY_HAND = (
    "README.md",
    "projects/sg_gov/README.md",
    "deploy/README.md",
    *(f"docs/{name}.md" for name in HANDS),
    *(f"docs/howto/{path.name}" for path in sorted((ROOT / "docs/howto").iterdir())),
)
UNITS = ("%", "points", "times", "clips/s", "epochs/s", "MB/s", "GB", "MB", "ms", "s", "min")
MEASURED = re.compile(rf"\d (?:{'|'.join(UNITS)})(?![\w/])|\d+ of \d+\b")
# What was chosen and not measured.
SETTINGS = re.compile(
    r"(?:0\.2 to )?\b30 s\b|0\.1 to 0\.25 s of silence|12 % of each split|13 % get|199 of 200 clips|95 % confidence"
)
MADE_BY = re.compile(r"`(?:make|wertune|pytest|mlflow run|python|py-spy)\b[^`]*`|arXiv|benchmarks\.md|doi:")
CITED = re.compile(r"[A-Z]\w+(?:\s+et\s+al\.|\s+and\s+[A-Z]\w+)?\s+(?:19|20)\d\d")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = ["make", "-o", ".venv/.ready", f"BIN={Path(sys.executable).parent}", f"SITE={folder}", "docs"]
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


def test_every_link_leads_to_a_file_of_the_site(site: Path) -> None:
    dead = []
    for page in (path for path in site.rglob("*.html") if path.name != "404.html"):
        for link in re.findall(r"(?:href|src)=\"?([^\"\s>#]+)", page.read_text(encoding="utf-8")):
            address = link.partition("?")[0]
            if not re.match(r"\w+:|//", address) and not (page.parent / unquote(address)).exists():
                dead.append(f"{page.relative_to(site)}: {link}")
    assert dead == []


def test_no_list_is_run_into_a_paragraph(site: Path) -> None:
    for page in site.rglob("*.html"):
        paragraphs = re.findall(r"<p>(.*?)</p>", page.read_text(encoding="utf-8"), re.S)
        assert [each for each in paragraphs if "\n- " in each] == [], page


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


@pytest.mark.parametrize("page", ["configuration", "gates"])
def test_every_key_of_the_reference_has_a_meaning(site: Path, page: str) -> None:
    text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
    rows = [re.findall(r"<td>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", text, re.S)]
    keys = [cells for cells in rows if cells]
    assert len(keys) >= 60
    assert [cells[0] for cells in keys if not cells[-1].strip()] == []


def test_of_many_values_the_reference_shows_a_few(site: Path) -> None:
    text = (site / "reference" / "configuration.html").read_text(encoding="utf-8")
    (row,) = [row for row in re.findall(r"<tr>.*?</tr>", text, re.S) if "<code>language</code>" in row]
    assert "(100 values)" in row
    assert "<code>cy</code>" not in row
    assert "<code>speaker</code> or <code>utterance</code>" in text


def test_every_gate_is_in_the_reference(site: Path) -> None:
    text = (site / "reference" / "gates.html").read_text(encoding="utf-8")
    kinds = [kind.model_fields["kind"].default for kind in get_args(get_args(AnyGate)[0])]
    assert [kind for kind in kinds if f'id="{kind}"' not in text] == []


def test_the_public_modules_are_told_from_their_docstrings(site: Path) -> None:
    text = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert 'id="wertune.scores.metrics.EditCounts.rate"' in text
    assert "WER of words, CER of characters." in text


@pytest.mark.parametrize("name", WRITTEN_BY_HAND)
def test_a_measured_figure_names_what_makes_it(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
    joined = re.sub(r":\n\s*\n(?=[|-])", ":\n", prose)  # a table or a list and the words that introduce it
    for paragraph in re.split(r"\n\s*\n(?!\()", joined):  # what stands in brackets below a table is its own
        introduction, colon, _ = paragraph.partition(":\n")
        parts = [] if colon and MADE_BY.search(introduction) else re.split(r"\n- ", paragraph)
        for part in (SETTINGS.sub("", " ".join(part.split())) for part in parts):
            assert not MEASURED.search(part) or MADE_BY.search(part), f"{name}: {part}"


def test_each_part_of_the_method_has_a_figure_and_each_source_a_link() -> None:
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    _, *parts = text.split("\n## ")
    assert len(parts) == 5
    assert [part.splitlines()[0] for part in parts if "<figure" not in part] == []
    linked = {" ".join(found[0].split()) for found in CITED.finditer(text) if "](https://" in text[found.end() :][:60]}
    assert len(linked) >= 15
    assert {" ".join(found.split()) for found in CITED.findall(text)} == linked

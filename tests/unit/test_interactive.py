"""The page of figures: what is in it, and that plotly draws it in a real Chromium without a word."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.interactive import TrialHistory, _positions, figures_page
from wertune.metrics import Clip, score
from wertune.report import Comparison
from wertune.text import TermFinder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
POINT = {"lora_r": 8, "lora_target_modules": "q_proj"}
TRIALS = [
    TrialHistory("trial 01: r=8", "completed", {1: 0.3, 2: 0.2}, {"best_objective": 0.2, "peak_memory_mb": 9}, POINT),
    TrialHistory("trial 02: lora_r=4", "pruned", {1: 0.4}, {"best_objective": 0.4}, POINT | {"lora_r": 4}),
    TrialHistory("trial 03: </script><b>", "failed", {}, {}, {}),
]  # fmt: skip


def _comparison() -> Comparison:
    clips = [Clip("a:1", "top up cpf", "ann", duration_s=2.5), Clip("a:2", "log in", "bob", duration_s=16)]
    finder = TermFinder(["cpf"], str.lower)
    texts = (["top up sea", "log in"], ["top up cpf", "lock in"])
    return Comparison(*(score(clips, written, str.lower, finder) for written in texts))


def _figures(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    assert found
    return {figure["title"]: figure for figure in json.loads(found[1])}


@pytest.fixture(scope="module")
def html() -> str:
    return figures_page("A search", TRIALS, {"test": _comparison()}, {"lora_r": 0.7, "seed": 0.3}, [1])


def test_the_page_holds_search_and_results(html: str) -> None:
    figures = _figures(html)
    assert set(figures) == {
        "Learning curves", "Optimisation history", "Parallel coordinates", "Parameter importances",
        "Memory by configuration", "WER by speaker, test", "WER by duration, test", "Recall by term, test",
    }  # fmt: skip
    curves = figures["Learning curves"]
    assert [trace["marker"]["symbol"][-1] for trace in curves["data"]] == ["circle", "x"]
    assert [shape["x0"] for shape in curves["layout"]["shapes"]] == [1]
    assert "rung 1 of 1" in figures["Optimisation history"]["data"][1]["text"][0]
    recall = figures["Recall by term, test"]["data"]
    assert [trace["x"] for trace in recall] == [[0.0], [1.0]]
    assert figures["WER by duration, test"]["data"][0]["x"] == ["2 to 3 s<br>1 clips", "15 s and more<br>1 clips"]
    assert html.count("plotly.js v") == 1


def test_one_trial_without_a_search_has_its_results_alone() -> None:
    assert set(_figures(figures_page("t", TRIALS[:1], {}, {}, []))) == {"Learning curves", "Memory by configuration"}


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6))).filter(any))
def test_positions_keep_the_order_of_numbers(values: list[float | None]) -> None:
    placed = _positions(values)
    known = [(value, place) for value, place in zip(values, placed, strict=True) if value is not None]
    assert all(place is not None and 0 <= place <= 1 for _, place in known)
    assert sorted(place for _, place in known) == [place for _, place in sorted(known)]  # type: ignore[type-var]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
def test_plotly_draws_every_figure(html: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    (tmp_path / "figures.html").write_text(html, encoding="utf-8")
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((tmp_path / "figures.html").as_uri())
        page.locator(".main-svg").nth(1).wait_for()
        assert page.locator(".plot.js-plotly-plot").count() == len(_figures(html))
        page.get_by_role("button", name="Use dark colours").click()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        browser.close()
    assert said == []

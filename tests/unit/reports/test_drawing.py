"""A run's figures: what is in them, that plotly draws the page in a real Chromium, and pictures that can be read."""

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure as Picture

from wertune.base.text import TermFinder
from wertune.reports.drawing import figures_page, file_name, picture
from wertune.reports.figures import Figure, TrialHistory, _positions, run_figures
from wertune.reports.time_spent import BESIDE, MAIN, Phases, Span, time_bars, trial_spans
from wertune.scores.comparison import Comparison
from wertune.scores.metrics import Clip, Scores, score

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
POINT = {"lora_r": 8, "lora_target_modules": "q_proj"}
TRIALS = [
    TrialHistory(1, "trial 01: 8", "completed", {1: 0.3, 2: 0.2}, {"best_objective": 0.2, "peak_memory_mb": 9}, POINT),
    TrialHistory(2, "trial 02: lora_r=4", "pruned", {1: 0.4}, {"best_objective": 0.4}, POINT | {"lora_r": 4}),
    TrialHistory(3, "trial 03: </script><b>", "failed", {}, {}, {}),
    TrialHistory(4, "trial 04: r=8", "pruned", {1: 0.5}, {"best_objective": 0.5, "peak_memory_mb": 7}, POINT),
]  # fmt: skip
TERMS = [f"term{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]


def _comparison() -> Comparison:
    clips = [Clip("a:1", "top up cpf", "ann", duration_s=2.5), Clip("a:2", "log in", "bob", duration_s=16)]
    finder = TermFinder(["cpf"], str.lower)
    texts = (["top up sea", "log in"], ["top up cpf", "lock in"])
    return Comparison(*(score(clips, written, str.lower, finder) for written in texts))


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    found = [*run_figures(TRIALS, {"test": _comparison()}, {"lora_r": 0.7, "seed": 0.3}, [1]), time_bars(SPANS)]
    return {figure["title"]: figure for figure in found}


@pytest.fixture(scope="module")
def html(figures: dict[str, Figure]) -> str:
    return figures_page("A search", list(figures.values()))


def test_there_are_figures_of_search_and_results(figures: dict[str, Figure]) -> None:
    assert set(figures) == {
        "Learning curves", "Optimisation history", "Parallel coordinates", "Parameter importances",
        "Memory by configuration", "WER by speaker, test", "WER by duration, test", "Recall by term, test",
        "Where the time went",
    }  # fmt: skip
    curves = figures["Learning curves"]
    assert [trace["marker"]["symbol"][-1] for trace in curves["data"]] == ["circle", "x", "x"]
    assert [(shape["x0"], shape["label"]["text"]) for shape in curves["layout"]["shapes"]] == [(1, "rung 1")]
    recall = figures["Recall by term, test"]["data"]
    assert [trace["x"] for trace in recall] == [[0.0], [1.0]]
    assert figures["WER by duration, test"]["data"][0]["x"] == ["2 to 3 s<br>1 clip", "15 s and more<br>1 clip"]


SPANS = [
    Span(MAIN, "checks", 100.0, 110.0),
    Span(MAIN, "search", 110.0, 180.0),
    *trial_spans("trial 01", 115.0, 179.0, {1: (20.0, 150.0), 2: (15.0, 178.0)}, {1: (10.0, 150.0), 2: (12.0, 178.0)}),
]


def test_the_time_of_a_trial_is_training_evaluation_and_what_lies_between() -> None:
    assert [(span.what, span.start_s, span.end_s) for span in SPANS[2:]] == [
        (BESIDE, 115, 120), ("training", 120, 140), ("evaluation", 140, 150),
        (BESIDE, 150, 151), ("training", 151, 166), ("evaluation", 166, 178), (BESIDE, 178, 179),
    ]  # fmt: skip
    figure = time_bars(SPANS)
    assert [trace["name"] for trace in figure["data"]] == [
        "checks, 10 s", "search, 70 s", "training, 35 s", "evaluation, 22 s", f"{BESIDE}, 7 s",
    ]  # fmt: skip
    assert figure["data"][0]["x"] == pytest.approx([0, 1 / 6, 1 / 6])
    assert figure["layout"]["yaxis"]["ticktext"] == [MAIN, "trial 01"]
    assert "1.3 minutes" in figure["note"]


@given(
    epochs=st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(0, 200)), max_size=5),
    start_s=st.floats(0, 100),
)
def test_the_spans_of_a_trial_are_in_order_whatever_its_clocks_say(
    epochs: list[tuple[float, float, float]], start_s: float
) -> None:
    training = {n: (trained, start_s + told) for n, (trained, _, told) in enumerate(sorted(epochs, key=lambda e: e[2]))}
    evaluation = {n: (each[1], training[n][1]) for n, each in enumerate(sorted(epochs, key=lambda e: e[2]))}
    spans = trial_spans("trial", start_s, start_s + 10, training, evaluation)
    assert all(span.start_s < span.end_s for span in spans)
    assert all(a.end_s <= b.start_s for a, b in pairwise(spans))


def test_phases_follow_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 3.0, 7.0])
    monkeypatch.setattr("wertune.reports.time_spent.time", SimpleNamespace(time=lambda: next(clock)))
    phases = Phases()
    phases.begin("checks")
    phases.begin("search")
    assert phases.spans() == [Span(MAIN, "checks", 1.0, 3.0), Span(MAIN, "search", 3.0, 7.0)]


def test_the_history_says_where_each_trial_was_stopped(figures: dict[str, Figure]) -> None:
    history = figures["Optimisation history"]
    assert {trace["name"]: trace["x"] for trace in history["data"]} == {
        "completed (epoch 2)": [1],
        "stopped at rung 1 (epoch 1)": [2, 4],
        "best so far": [1, 2, 4],
    }
    assert "after epochs 1." in history["note"]


def test_the_history_goes_by_the_trials_own_numbers_after_failed_ones_and_beyond_99() -> None:
    numbers = [n for n in range(1, 103) if n != 7]
    trials = [TrialHistory(n, f"trial {n:02d}", "completed", {1: 0.5}, {"best_objective": 1 / n}, {}) for n in numbers]
    failed = TrialHistory(7, "trial 07", "failed", {}, {}, {})
    ran, best = next(f for f in run_figures([failed, *trials], {}, {}, []) if f["title"] == "Optimisation history")[
        "data"
    ]
    assert ran["x"] == best["x"] == numbers
    assert ran["y"] == best["y"] == [1 / n for n in numbers]
    assert ran["text"] == [f"trial {n:02d}" for n in numbers]


def test_memory_is_the_highest_of_the_trials_of_a_configuration(figures: dict[str, Figure]) -> None:
    (bars,) = figures["Memory by configuration"]["data"]
    assert (bars["y"], bars["x"], bars["text"]) == (["lora_r=8, q_proj"], [9], ["trial 01, trial 04"])


def test_one_trial_without_a_search_has_its_results_alone() -> None:
    titles = {figure["title"] for figure in run_figures(TRIALS[:1], {}, {}, [])}
    assert titles == {"Learning curves", "Memory by configuration"}


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6))).filter(any))
def test_positions_keep_the_order_of_numbers(values: list[float | None]) -> None:
    placed = _positions(values)
    known = [(value, place) for value, place in zip(values, placed, strict=True) if value is not None]
    assert all(place is not None and 0 <= place <= 1 for _, place in known)
    assert sorted(place for _, place in known) == [place for _, place in sorted(known)]  # type: ignore[type-var]


def test_positive_numbers_over_more_than_a_decade_stand_by_their_logarithm() -> None:
    assert _positions([1e-5, None, 1e-4, 1e-3]) == pytest.approx([0, None, 0.5, 1])
    assert _positions([1, 5.5, 10]) == [0, 0.5, 1]
    assert _positions([0, 500, 1000]) == [0, 0.5, 1]


def _texts(drawn: Picture) -> set[str]:
    from matplotlib.text import Text

    return {text.get_text() for text in drawn.findobj(Text)}


def test_every_figure_is_a_picture_too_and_says_the_same(figures: dict[str, Figure], tmp_path: Path) -> None:
    for title, figure in figures.items():
        drawn = picture(figure)
        drawn.savefig(tmp_path / file_name(figure))
        assert (tmp_path / file_name(figure)).read_bytes().startswith(b"\x89PNG")
        assert {title, figure["note"]} <= _texts(drawn)
        named = {trace["name"] for trace in figure["data"] if len(figure["data"]) > 1 and trace.get("name")}
        shown = figure["layout"].get("showlegend", True)
        assert not shown or named <= _texts(drawn)
        assert {note["text"] for note in figure["layout"].get("annotations", [])} <= _texts(drawn)
    assert {path.name for path in tmp_path.iterdir()} >= {"learning_curves.png", "wer_by_speaker_test.png"}


def test_lines_marks_and_bars_stand_where_the_figure_has_them(figures: dict[str, Figure]) -> None:
    (curves,) = picture(figures["Learning curves"]).axes
    lines = [(list(line.get_xdata()), list(line.get_ydata()), line.get_marker()) for line in curves.lines]  # type: ignore[arg-type]
    assert ([1, 2], [0.3, 0.2], "None") in lines
    assert ([1], [0.4], "x") in lines
    assert ([1, 1], [0, 1], "None") in lines  # the rung, from foot to head
    (bars,) = picture(figures["Memory by configuration"]).axes
    assert [bar.get_width() for bar in bars.containers[0]] == [9]
    (speakers,) = picture(figures["WER by speaker, test"]).axes
    assert [[bar.get_height() for bar in group] for group in speakers.containers] == [
        trace["y"] for trace in figures["WER by speaker, test"]["data"]
    ]
    assert [label.get_text() for label in speakers.get_xticklabels()] == ["ann\n1 clip", "bob\n1 clip"]


def _by_speaker(names: list[str]) -> Figure:
    scores = score([Clip(name, "a b", name) for name in names], ["a"] * len(names), str.lower, TermFinder([], str))
    figures = run_figures([], {"test": Comparison(scores, scores)}, {}, [])
    return next(figure for figure in figures if figure["title"] == "WER by speaker, test")


def _scores(finder: TermFinder) -> Scores:
    return score([Clip(term, term) for term in TERMS], TERMS, str.lower, finder)


def test_the_labels_of_many_terms_do_not_overlap() -> None:
    both = Comparison(*(_scores(TermFinder(TERMS, str.lower)) for _ in range(2)))
    figure = next(f for f in run_figures([], {"test": both}, {}, []) if f["title"] == "Recall by term, test")
    drawn = picture(figure)
    drawn.canvas.draw()
    boxes = sorted((label.get_window_extent() for label in drawn.axes[0].get_yticklabels()), key=lambda box: box.y0)
    assert len(boxes) == len(TERMS)
    assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))


def test_groups_stand_in_the_order_of_their_numbers() -> None:
    assert [name.split("<br>")[0] for name in _by_speaker(["voice 10", "voice 2", "ann"])["data"][0]["x"]] == [
        "ann", "voice 2", "voice 10",
    ]  # fmt: skip


def test_the_turned_names_of_many_speakers_end_under_their_bars() -> None:
    drawn = picture(_by_speaker([f"speaker {number}" for number in range(1, 19)]))
    drawn.canvas.draw()
    (axes,) = drawn.axes
    labels = axes.get_xticklabels()
    assert [label.get_text().split("\n")[0] for label in labels] == [f"speaker {number}" for number in range(1, 19)]
    for number, label in enumerate(labels):
        middle, _ = axes.transData.transform((number, 0))
        assert label.get_window_extent().x1 == pytest.approx(middle, abs=25)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
def test_plotly_draws_every_figure(html: str, figures: dict[str, Figure], tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    assert found
    assert json.loads(found[1]) == list(figures.values())
    assert html.count("plotly.js v") == 1
    (tmp_path / "figures.html").write_text(html, encoding="utf-8")
    said: list[Any] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((tmp_path / "figures.html").as_uri())
        page.locator(".main-svg").nth(1).wait_for()
        assert page.locator(".plot.js-plotly-plot").count() == len(figures)
        page.get_by_role("button", name="Use dark colours").click()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        labels = page.locator(".annotation-text")
        assert labels.count() == 0
        page.set_viewport_size({"width": 1200, "height": 800})
        labels.first.wait_for()
        assert labels.count() == len(figures["Parallel coordinates"]["layout"]["annotations"])
        browser.close()
    assert said == []

"""A decision for people: every gate is there, what refused is explained, and nothing is markup that should be text."""

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from wergate.gates.decision import Decision, decide
from wergate.gates.gate import GateResult
from wergate.gates.kinds.accuracy import BaseGate, CerGate, WerGate
from wergate.gates.page import html_page, text_table
from wergate.gates.policy import Policy
from wergate.gates.units import show, show_ends
from wertune.scores.bootstrap import BootstrapSettings
from wertune.scores.eval_report import EvalReport

GATES = (WerGate(limit=0.5), BaseGate(limit=-0.9), CerGate(limit=0.0, blocks=False))


@pytest.fixture
def decision(make_report: Callable[..., EvalReport]) -> Decision:
    policy = Policy(bootstrap=BootstrapSettings(resamples=200), staging=GATES, production=GATES)
    return decide(make_report(), None, policy, "staging")


def test_the_table_gives_value_interval_limit_verdict_and_help(decision: Decision) -> None:
    text = text_table(decision)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("demo version 2 to staging: refused; in Production now: none")
    assert len(rows) == 2 + len(GATES)
    assert "scored as served by torch" in text
    assert re.search(r"\| wer_test +\| 5\.0 % +\| \S+ to \S+ % +\| upper end <= 50\.0 % +\| passed", rows[2])
    assert re.search(
        r"\| base_test .*-30\.0 points .*upper end < -90\.0 points \| refused \| compare transcripts", rows[3]
    )
    assert "| warned " in rows[4]
    assert "- base_test refused: upper end" in text
    assert "- cer_test warned: " in text
    assert "- wer_test" not in text


def test_the_engine_that_was_scored_is_shown(decision: Decision) -> None:
    other = decision.model_copy(update={"engine": "ctranslate2"})
    assert "scored as served by ctranslate2" in text_table(other)
    assert "<dt>engine</dt><dd>ctranslate2</dd>" in html_page(other)


def test_a_cell_stays_a_cell(decision: Decision) -> None:
    gate = decision.gates[0].model_copy(update={"passed": False, "remedy": "a | b\nc"})
    assert r"a \| b c |" in text_table(decision.model_copy(update={"gates": (gate,)}))


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _parsed(page: str) -> _Texts:
    parser = _Texts()
    parser.feed(page)
    return parser


def test_the_page_holds_every_gate_and_needs_nothing_else(decision: Decision) -> None:
    page = html_page(decision)
    found = _parsed(page)
    for gate in decision.gates:
        assert {gate.name, gate.detail} <= set(found.texts)
    assert "What would help: " + decision.refusals[0].remedy in found.texts
    assert {decision.policy_digest, decision.report_digest, decision.test_digest} <= set(found.texts)
    assert "prefers-color-scheme: dark" in page
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert "http" not in page


def test_what_a_report_says_is_never_markup(decision: Decision) -> None:
    evil = '<script>alert("1")</script>&amp;{style}'
    gate = GateResult(
        name=evil, kind="wer", value=1, limit=0, unit=evil, rule=evil, passed=False, detail=evil, remedy=evil
    )
    facts = {"model": evil, "version": evil, "transition": evil, "policy_digest": evil, "report_digest": evil}
    page = html_page(decision.model_copy(update={"gates": (gate,), "test_digest": evil, **facts}))
    assert "script" not in _parsed(page).tags
    assert evil in _parsed(page).texts


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.109, "errors/word", "10.9 %"),
        (0.008, "difference of errors/word", "+0.8 points"),
        (1.2345, "x base", "1.234 x base"),
        (3.0, "clips", "3 clips"),
        (None, "MB", "not measured"),
    ],
)
def test_figures_are_written_in_their_unit(value: float | None, unit: str, text: str) -> None:
    assert show(value, unit) == text


def test_ends_share_their_unit() -> None:
    assert show_ends((-0.244, -0.188), "difference of errors/word") == "-24.4 to -18.8 points"
    assert show_ends(None, "share") == ""

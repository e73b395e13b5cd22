"""What the how-to pages show besides commands is what the code takes: keys of a search, gates, a gate of one's own."""

import re
import textwrap
from collections.abc import Callable

import pytest
import yaml
from tests.support.places import ROOT

import wergate.gates.kinds.accuracy
from wergate.gates.evidence import Evidence
from wergate.gates.policy import Policy
from wertune.base.config import TrialConfig
from wertune.scores.bootstrap import BootstrapSettings
from wertune.scores.eval_report import EvalReport, SetReport
from wertune.search.search_space import SearchConfig, checked_space


def _blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [textwrap.dedent(body) for body in re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.M | re.S)]


def test_the_shown_search_space_fits_the_configuration() -> None:
    (shown,) = _blocks("howto/search-dimension.md", "yaml")
    checked_space(SearchConfig.model_validate(yaml.safe_load(shown)), TrialConfig(), "the page")


def test_the_shown_gates_are_a_policy() -> None:
    (shown,) = _blocks("howto/gate.md", "yaml")
    values = yaml.safe_load(shown)
    policy = Policy.model_validate(values | {"production": values["staging"]})
    assert [gate.title for gate in policy.staging] == ["slice_channel_telephone_test", "term_recall_unseen_test"]


def test_the_tutorials_policy_is_one() -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    found = re.search(r"<<'YAML'\n(.*?)^YAML$", text, re.M | re.S)
    assert found is not None
    assert Policy.model_validate(yaml.safe_load(found[1])).staging


@pytest.mark.parametrize(("limit", "passed"), [(0.2, True), (0.05, False)])
def test_the_shown_gate_judges(
    limit: float, passed: bool, make_report: Callable[..., EvalReport], make_set: Callable[..., SetReport]
) -> None:
    names = dict(vars(wergate.gates.kinds.accuracy))
    (code,) = _blocks("howto/gate.md", "python")
    exec(code, names)
    report = make_report(sets={"test": make_set([0] * 30, deletions=1)})  # one of ten words in each clip
    evidence = Evidence(report, None, BootstrapSettings(resamples=400))
    assert names["DeletionGate"](limit=limit).evaluate(evidence).passed is passed

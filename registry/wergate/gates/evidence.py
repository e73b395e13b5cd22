"""What gates look at: the sets of a report as arrays, and the reason where there is nothing to look at."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from wertune.base.contract import ALONE, JOINED_SET, LONG_SET
from wertune.scores.bootstrap import BootstrapSettings, Floats, TooFewBlocks
from wertune.scores.eval_report import EvalReport, SetReport, UtteranceCounts

BASE = "the untouched base"
AGAIN = "evaluate base and version in one run"
# Sets that come of themselves where the project has the clips for them.
_NEEDS = {
    JOINED_SET: "with two test clips or more of one language, of which long recordings are joined",
    LONG_SET: "with whole recordings and their segments as data.long",
}


class NoEvidence(Exception):
    """A gate cannot be judged: `detail` says what is missing, `remedy` what would help."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.detail, self.remedy = detail, remedy


@dataclass(frozen=True)
class Evidence:
    """The candidate, present Production if any, and how intervals are made."""

    candidate: EvalReport
    champion: EvalReport | None
    bootstrap: BootstrapSettings

    def set(self, name: str) -> SetReport:
        """The candidate's set `name`, or NoEvidence."""
        return find_set(self.candidate.sets, name, "the candidate's report")

    def baseline(self, name: str) -> SetReport:
        """The untouched base's set `name`, or NoEvidence."""
        return find_set(self.candidate.baseline, name, f"{BASE} in the candidate's report")


@contextmanager
def enough(place: str, remedy: str) -> Iterator[None]:
    """NoEvidence, which begins with `place`, where the block draws from too few clips for an interval."""
    try:
        yield
    except TooFewBlocks as few:
        raise NoEvidence(f"{place} {few}", remedy) from None


def find_set(sets: Mapping[str, SetReport], name: str, owner: str) -> SetReport:
    """A set with at least one clip, or NoEvidence."""
    if name not in sets or not sets[name].utterances:
        problem = "has no clips" if name in sets else "is missing"
        has = ", ".join(key for key, found in sets.items() if found.utterances) or "nothing"
        needs = _NEEDS.get(name.removesuffix(ALONE), f"with the set {name}")
        raise NoEvidence(f"set {name} {problem} in {owner}, which has {has}", f"evaluate again, {needs}")
    return sets[name]


def column(report: SetReport, count: Callable[[UtteranceCounts], float]) -> Floats:
    """`count` of each clip: (n,)."""
    return np.array([count(utterance) for utterance in report.utterances], dtype=np.float64)


def errors(report: SetReport) -> Floats:
    return column(report, lambda utterance: utterance.errors)


def words(report: SetReport) -> Floats:
    """Words of each reference (n,); NoEvidence if there are none at all."""
    counts = column(report, lambda utterance: utterance.words)
    if not counts.any():
        raise NoEvidence("no word is said in the whole set", "evaluate a set with speech")
    return counts


def speakers(report: SetReport) -> list[str]:
    return [utterance.speaker for utterance in report.utterances]


def same_clips(after: SetReport, before: SetReport, owner: str, remedy: str) -> SetReport:
    """`before` in the order of `after`, or NoEvidence where they are not the same clips with the same words."""
    if after.digest != before.digest:
        raise NoEvidence(f"{owner} was measured on set {before.digest}, the candidate on {after.digest}", remedy)
    found = {utterance.id: utterance for utterance in before.utterances}
    ids = [utterance.id for utterance in after.utterances]
    if not len(set(ids)) == len(ids) == len(before.utterances) or set(ids) != set(found):
        raise NoEvidence(f"{owner} has other clips, or clips twice, under the same digest {after.digest}", remedy)
    other = [utterance.id for utterance in after.utterances if found[utterance.id].words != utterance.words]
    if other:
        raise NoEvidence(f"{owner} counts other words in {len(other)} clips, such as {other[0]}", remedy)
    return SetReport(digest=before.digest, utterances=tuple(found[name] for name in ids))

"""Error rates: within limits, better than the base and than Production, and no worse on ordinary speech."""

from wergate.gates.decision import GateResult
from wergate.gates.evaluators.verdict import Size, judged, judged_end, waived
from wergate.gates.evidence import Evidence, NoEvidence, column, errors, find_set, same_clips, speakers, words
from wergate.gates.kinds import (
    BaseGate,
    CerGate,
    ChampionGate,
    ForgettingGate,
    LexiconWerGate,
    OtherWerGate,
    WerGate,
)
from wertune.scores.bootstrap import Floats, Interval, TooFewBlocks, corpus_rate, paired_difference
from wertune.scores.eval_report import SetReport

_MORE_CLIPS = "evaluate more clips of more speakers"
_REMEDIES = {
    "wer": "train longer or on more domain clips, or evaluate more speakers where only the interval is too wide",
    "cer": "look at the worst utterances; train longer or on more domain clips",
    "b_wer": "add training clips for the lexicon words most often missed or written falsely",
    "u_wer": "add replay clips, or lower lora.strength: words outside the lexicon suffer",
}


def wer(gate: WerGate, evidence: Evidence) -> GateResult:
    found = evidence.set(gate.set)
    return _rate(gate, evidence, found, errors(found), words(found), "words")


def cer(gate: CerGate, evidence: Evidence) -> GateResult:
    found = evidence.set(gate.set)
    part, whole = column(found, lambda u: u.character_errors), column(found, lambda u: u.characters)
    return _rate(gate, evidence, found, part, whole, "characters")


def lexicon_wer(gate: LexiconWerGate, evidence: Evidence) -> GateResult:
    found = evidence.set(gate.set)
    part, whole = column(found, lambda u: u.lexicon_errors), column(found, lambda u: u.lexicon_words)
    return _rate(gate, evidence, found, part, whole, "lexicon words")


def other_wer(gate: OtherWerGate, evidence: Evidence) -> GateResult:
    found = evidence.set(gate.set)
    part = column(found, lambda u: u.errors - u.lexicon_errors)
    whole = column(found, lambda u: u.words - u.lexicon_words)
    return _rate(gate, evidence, found, part, whole, "words outside the lexicon")


def better_than_base(gate: BaseGate, evidence: Evidence) -> GateResult:
    remedy = "compare transcripts with the base's; train longer, or on clips nearer to this set"
    before = evidence.baseline(gate.set)
    return _compared(gate, evidence, before, "the untouched base", remedy, "evaluate base and version in one run")


def better_than_champion(gate: ChampionGate, evidence: Evidence) -> GateResult:
    """Passes where nothing is in Production."""
    champion = evidence.champion
    if champion is None:
        return waived(gate, "nothing is in Production yet")
    owner = f"version {champion.version} in Production"
    again = f"evaluate version {champion.version} again, on the test set of today"
    before = find_set(champion.sets, gate.set, owner)
    return _compared(gate, evidence, before, owner, f"keep {owner}, or train a version that beats it", again)


def forgetting(gate: ForgettingGate, evidence: Evidence) -> GateResult:
    remedy = (
        "lower lora.strength or the learning rate, or raise train.replay_ratio; more retention clips narrow the end"
    )
    before = evidence.baseline(gate.set)
    return _compared(gate, evidence, before, "the untouched base", remedy, "evaluate base and version in one run")


AnyRate = WerGate | CerGate | LexiconWerGate | OtherWerGate


def _rate(gate: AnyRate, evidence: Evidence, found: SetReport, part: Floats, whole: Floats, what: str) -> GateResult:
    if not whole.any():
        raise NoEvidence(f"set {gate.set} has no {what}", f"evaluate a set that has {what}")
    detail = f"{gate.set}: {part.sum():.0f} errors in {whole.sum():.0f} {what}"
    if gate.judge == "point":
        return judged(gate, float(part.sum() / whole.sum()), detail, _REMEDIES[gate.kind])
    try:
        ends = corpus_rate(part, whole, speakers(found), evidence.bootstrap)
    except TooFewBlocks as few:
        raise NoEvidence(f"{gate.set}: {few}", _MORE_CLIPS) from None
    return judged_end(gate, ends, detail, _REMEDIES[gate.kind], Size(float(whole.sum()), what))


AnyComparison = BaseGate | ChampionGate | ForgettingGate


def _compared(
    gate: AnyComparison, evidence: Evidence, before: SetReport, owner: str, remedy: str, again: str
) -> GateResult:
    """Paired difference of corpus WER; `again` helps where the two were not measured on the same clips."""
    after = evidence.set(gate.set)
    before = same_clips(after, before, owner, again)
    ends = _difference(evidence, after, before, gate.set)
    count = float(words(after).sum())
    detail = f"{gate.set}: {errors(after).sum():.0f} errors, {owner} {errors(before).sum():.0f}, in {count:.0f} words"
    return judged_end(gate, ends, detail, remedy, Size(count, "words"))


def _difference(evidence: Evidence, after: SetReport, before: SetReport, name: str) -> Interval:
    try:
        return paired_difference(errors(after), errors(before), words(after), speakers(after), evidence.bootstrap)
    except TooFewBlocks as few:
        raise NoEvidence(f"{name}: {few}", _MORE_CLIPS) from None

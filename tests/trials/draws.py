"""`python -m tests.trials.draws --draws 500`: how often a policy passes an equal version, and one worse by a margin.

Sets of the demo's size are made up again and again: the same voices, new words, errors that come in clumps and are
partly the untouched base's own. Each draw goes through `decide`, as a real report does.
"""

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wergate.gates.decision import Decision, decide
from wergate.gates.policy import Policy, load_policy
from wertune.base.contract import BATTERY_PREFIX
from wertune.scores.bootstrap import BootstrapSettings
from wertune.scores.eval_report import Cost, EvalReport, Provenance, SetReport, UtteranceCounts

POLICY = Path("registry/policies/sg_gov.yaml")
QUICK = BootstrapSettings(resamples=400)
VOICES, SPREAD = 24, 0.35  # a voice's errors beside the mean voice's, as the deviation of a logarithm
CLUMP = 0.3  # shape of the gamma by which errors gather in few clips
CHANNELS = ("clean", "clean", "clean", "clean", "clean", "clean", "telephone", "noisy")
Floats = Any


@dataclass(frozen=True)
class Speech:
    """A set: so many clips of so many words; errors a word of both, and of base and version alone."""

    clips: int
    words: float
    both: float = 0.0
    base: float = 0.0
    version: float = 0.0
    clump: float = CLUMP
    deleted: tuple[float, float] = (0.0, 0.0)
    inexact: tuple[float, float, float] = (0.0, 0.0, 0.0)
    terms: float = 0.0
    recall: float = 0.93
    false_alarms: float = 0.0
    false_terms: float = 0.0
    formatted: float = 0.1
    seconds: float = 4.0


EVERYDAY = Speech(140, 14, 0.05, 0.03, 0.03)
NUMBERS = Speech(80, 8, 0.05, 0.04, 0.04, inexact=(0.2, 0.08, 0.08))
# What the demo's sets are to be, with rates as its versions had them: 29 % and 7 % on its own test set, 2.7 % of wrong
# words on retention, of which base and version share half.
SETS: Mapping[str, Speech] = {
    "test": Speech(400, 7.5, 0.05, 0.24, 0.02, terms=1.05, false_alarms=0.03),
    "retention_test": Speech(220, 6.8, 0.015, 0.012, 0.012, clump=0.1),
    "short_answers": Speech(160, 1.3, 0.05, 0.03, 0.03, deleted=(0.01, 0.01), seconds=0.8),
    "digits": NUMBERS,
    "read_backs": replace(NUMBERS, clips=60, words=14),
    "figures": NUMBERS,
    "repeats": Speech(30, 8, 0.05, 0.03, 0.03),
    "spelled": Speech(40, 7, 0.1, 0.05, 0.05, inexact=(0.3, 0.1, 0.1)),
    "everyday": EVERYDAY,
    "questions": replace(EVERYDAY, clips=60, words=8),
    "hesitations": replace(EVERYDAY, clips=40, words=8),
    "nonspeech": Speech(60, 0, seconds=5.0),
    "silence": Speech(20, 0, seconds=5.0),
    "noise": Speech(20, 0, seconds=5.0),
    "short": Speech(20, 0, seconds=0.3),
}
OWN = ("test", "retention_test", "silence", "noise", "short")


def draw(sets: Mapping[str, Speech], generator: np.random.Generator) -> tuple[EvalReport, EvalReport]:
    """A version's report beside the base's, and one of an equally good version on the same clips of the test set."""
    after, before, champion = {}, {}, {}
    for name, speech in sets.items():
        key = name if name in OWN else f"{BATTERY_PREFIX}{name}"
        before[key], after[key], other = _measured(key, speech, generator)
        if name == "test":
            champion[key] = other
    return _report("2", after, before), _report("1", champion, {})


def _measured(name: str, speech: Speech, generator: np.random.Generator) -> list[SetReport]:
    """Base, version, and another version like it."""
    voice = np.arange(speech.clips) % VOICES
    factor = np.exp(SPREAD * np.random.default_rng(1).standard_normal(VOICES) - SPREAD**2 / 2)[voice]
    words = np.zeros(speech.clips, int)
    if speech.words:
        words = 1 + generator.poisson(speech.words - 1, speech.clips)
    both = _errors(words * factor * speech.both, speech.clump, generator)
    same_wrong = generator.random(speech.clips) < speech.inexact[0]
    terms = generator.poisson(speech.terms, speech.clips)
    reports = []
    for rate, deleted, inexact, recall in (
        (speech.base, speech.deleted[0], speech.inexact[1], 0.3),
        (speech.version, speech.deleted[1], speech.inexact[2], speech.recall),
        (speech.version, speech.deleted[1], speech.inexact[2], speech.recall),
    ):
        errors = both + _errors(words * factor * rate, speech.clump, generator)
        gone = generator.random(speech.clips) < deleted
        wrong = same_wrong | (generator.random(speech.clips) < inexact)
        counts = {
            "words": words,
            "errors": np.where(gone, words, errors),
            "hypothesis_words": np.where(gone, 0, words),
            "entity_errors": wrong * bool(speech.inexact[0]),
            "terms": np.stack([hits := generator.binomial(terms, recall), terms - hits], axis=1),
            "false_alarms": generator.poisson(speech.false_alarms, speech.clips),
            "false_terms": generator.poisson(words * speech.false_terms),
            "formatted": generator.poisson(words * speech.formatted),
        }
        reports.append(SetReport.model_construct(digest=name, utterances=_clips(counts, speech, voice)))
    return reports


def _errors(mean: Floats, clump: float, generator: np.random.Generator) -> Floats:
    return generator.poisson(mean * generator.gamma(clump, 1 / clump, len(mean)))


def _clips(counts: Mapping[str, Floats], speech: Speech, voice: Floats) -> tuple[UtteranceCounts, ...]:
    columns = {name: column.tolist() for name, column in counts.items()}
    return tuple(_clip(i, {k: column[i] for k, column in columns.items()}, speech, voice[i]) for i in range(len(voice)))


def _clip(number: int, found: Mapping[str, Any], speech: Speech, voice: int) -> UtteranceCounts:
    errors, (hits, misses), false = found["errors"], found["terms"], found["false_alarms"]
    return UtteranceCounts.model_construct(
        id=str(number),
        speaker=f"voice-{voice}",
        channel=CHANNELS[number % len(CHANNELS)],
        duration_s=speech.seconds,
        reference="",
        hypothesis="",
        words=found["words"],
        substitutions=errors,
        deletions=0,
        insertions=0,
        characters=5 * found["words"],
        character_errors=2 * errors,
        lexicon_words=min(hits + misses, found["words"]),
        lexicon_errors=min(misses + false, errors),
        terms={"CPF": (hits, misses, false)},
        hypothesis_words=found["hypothesis_words"],
        compression_ratio=1.0,
        formatted_words=found["words"],
        formatted_errors=errors + found["formatted"],
        entities=int(bool(speech.inexact[0])),
        entity_errors=int(found["entity_errors"]),
        false_terms=found["false_terms"],
        skipped_s=0.0,
    )


def _report(version: str, sets: Mapping[str, SetReport], baseline: Mapping[str, SetReport]) -> EvalReport:
    cost = {"trainable_parameters": 1, "trainable_percent": 1.4, "adapter_mb": 2.1, "peak_memory_mb": 900}
    origins = {"git_commit": "a", "data_digests": {"train": "a"}, "base_model_digest": "a", "adapter_digest": "a"}
    how = {"seed": 0, "normaliser": "a", "decode": {"num_beams": 8}, "context": {"short": True}}
    return EvalReport.model_construct(
        model="demo",
        version=version,
        created="2026-01-01T00:00:00Z",
        sets=sets,
        baseline=baseline,
        training_terms={"CPF": 5},
        cost=Cost(**cost, real_time_factor=0.1, baseline_real_time_factor=0.1),
        provenance=Provenance(**origins, **how),
    )


def quick(policy: Policy, settings: BootstrapSettings = QUICK) -> Policy:
    """The policy with fewer resamples, without a frozen test set, and without a term that no drawn clip says."""
    update: dict[str, Any] = {"bootstrap": settings}
    for transition in ("staging", "production"):
        gates = (g for g in policy.gates(transition) if g.kind != "worst_term")
        update[transition] = tuple(
            g.model_copy(update={"test_digest": None}) if g.kind == "provenance" else g for g in gates
        )
    return policy.model_copy(update=update)


def decisions(
    policy: Policy,
    transition: str,
    draws: int,
    sets: Mapping[str, Speech] = SETS,
    champion: bool = False,
    seed: int = 0,
) -> list[Decision]:
    """What the gates say of so many drawn reports."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        candidate, other = draw(sets, generator)
        found.append(decide(candidate, other if champion else None, policy, transition))
    return found


def harmed(name: str, **values: Any) -> Mapping[str, Speech]:
    """The sets with one that the version does worse on."""
    return {**SETS, name: replace(SETS[name], **values)}


def summary(title: str, found: list[Decision]) -> str:
    """The share that passed, and which gates refused how often."""
    refused = Counter(gate.name for decision in found for gate in decision.refusals)
    passed = sum(decision.passed for decision in found)
    named = ", ".join(f"{name} {count}" for name, count in refused.most_common(5))
    return f"{title}: {passed} of {len(found)} passed" + (f"; refused by {named}" if named else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--policy", type=Path, default=POLICY)
    given = parser.parse_args()
    policy = quick(load_policy(given.policy))
    for transition in ("staging", "production"):
        print(summary(f"equal, {transition}", decisions(policy, transition, given.draws)), flush=True)
    print(
        summary("equal successor, production", decisions(policy, "production", given.draws, champion=True)), flush=True
    )


if __name__ == "__main__":
    main()

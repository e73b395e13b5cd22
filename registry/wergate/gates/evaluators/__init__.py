"""Pure evaluators, one a kind of gate: a gate and the evidence in, a result out."""

from collections.abc import Callable, Mapping
from typing import Any

from wergate.gates.decision import GateResult
from wergate.gates.evaluators import accuracy, battery, delivery, robustness, terms
from wergate.gates.evaluators.verdict import unjudged
from wergate.gates.evidence import Evidence, NoEvidence
from wergate.gates.kinds import GateSpec

EVALUATORS: Mapping[str, Callable[[Any, Evidence], GateResult]] = {
    "wer": accuracy.wer,
    "cer": accuracy.cer,
    "b_wer": accuracy.lexicon_wer,
    "u_wer": accuracy.other_wer,
    "base": accuracy.better_than_base,
    "champion": accuracy.better_than_champion,
    "forgetting": accuracy.forgetting,
    "formatted_wer": battery.formatted_wer,
    "battery": battery.battery,
    "term": terms.term,
    "worst_term": terms.worst_term,
    "hallucination": robustness.hallucination,
    "loops": robustness.loops,
    "slice": robustness.worst_slice,
    "trainable_percent": delivery.trainable_percent,
    "adapter_mb": delivery.adapter_mb,
    "peak_memory_mb": delivery.peak_memory_mb,
    "real_time_factor": delivery.real_time_factor,
    "provenance": delivery.provenance,
    "leakage": delivery.leakage,
}


def evaluate(gate: GateSpec, evidence: Evidence) -> GateResult:
    """The gate's result; where it cannot be judged it has not passed, and the result says what is missing."""
    try:
        return EVALUATORS[gate.kind](gate, evidence)
    except NoEvidence as missing:
        return unjudged(gate, missing)

"""What shipping asks besides accuracy: cost, known origins, an unseen test set."""

from wergate.gates.decision import GateResult
from wergate.gates.evaluators.verdict import judged
from wergate.gates.evidence import Evidence, NoEvidence
from wergate.gates.kinds import (
    AdapterSizeGate,
    LeakageGate,
    PeakMemoryGate,
    ProvenanceGate,
    RealTimeFactorGate,
    TrainableGate,
)
from wertune.scores.eval_report import EvalReport

_SMALLER = "lower lora.r or name fewer target_modules"


def trainable_percent(gate: TrainableGate, evidence: Evidence) -> GateResult:
    cost = evidence.candidate.cost
    return judged(gate, cost.trainable_percent, f"{cost.trainable_parameters:,} parameters trained", _SMALLER)


def adapter_mb(gate: AdapterSizeGate, evidence: Evidence) -> GateResult:
    return judged(gate, evidence.candidate.cost.adapter_mb, "the adapter's file", _SMALLER)


def peak_memory_mb(gate: PeakMemoryGate, evidence: Evidence) -> GateResult:
    peak = evidence.candidate.cost.peak_memory_mb
    if not peak:
        raise NoEvidence("peak memory was not measured", "evaluate again where memory can be measured")
    return judged(gate, peak, "most memory held while transcribing", "lower decode.batch_size or use 8-bit weights")


def real_time_factor(gate: RealTimeFactorGate, evidence: Evidence) -> GateResult:
    cost = evidence.candidate.cost
    if not cost.real_time_factor or not cost.baseline_real_time_factor:
        raise NoEvidence("the real-time factors were not measured", "evaluate again, base and version in one run")
    detail = (
        f"{cost.real_time_factor:.4g} s a second of speech, the untouched base {cost.baseline_real_time_factor:.4g}"
    )
    remedy = f"{_SMALLER}, or use a short context; evaluate again if the machine was busy"
    return judged(gate, cost.real_time_factor / cost.baseline_real_time_factor, detail, remedy)


def provenance(gate: ProvenanceGate, evidence: Evidence) -> GateResult:
    report = evidence.candidate
    faults = _unknown_origins(report)
    remedies = ["train from a clean git checkout and evaluate the registered version again"] if faults else []
    test = report.sets.get("test")
    if gate.test_digest and (test is None or test.digest != gate.test_digest):
        measured = test.digest if test else "no test set"
        faults.append(f"test set is {measured}, but the policy froze {gate.test_digest}")
        remedies.append("evaluate on the frozen test set, or freeze the new one in the policy and say why")
    frozen = "the test set is the frozen one" if gate.test_digest else "the policy freezes no test set"
    detail = "; ".join(faults) or f"all origins are known; {frozen}"
    return judged(gate, float(len(faults)), detail, "; ".join(remedies))


def _unknown_origins(report: EvalReport) -> list[str]:
    origins = report.provenance
    known = {
        "git commit": bool(origins.git_commit),
        "data digests": bool(origins.data_digests) and all(origins.data_digests.values()),
        "base model digest": bool(origins.base_model_digest),
        "adapter digest": bool(origins.adapter_digest),
        "seed": origins.seed is not None,
        "normaliser": bool(origins.normaliser),
        "decode settings": bool(origins.decode),
        "context settings": bool(origins.context),
    }
    return [f"{name} unknown" for name, is_known in known.items() if not is_known]


def leakage(gate: LeakageGate, evidence: Evidence) -> GateResult:
    leaked = evidence.candidate.leakage
    such = f", such as {leaked[0]}" if leaked else ""
    detail = f"{len(leaked)} clips of the test set were in training{such}"
    return judged(gate, float(len(leaked)), detail, "take them out of the training manifest and train again")

"""What shipping asks besides accuracy: cost, known origins, an unseen test set."""

from typing import Literal

from pydantic import Field

from wergate.gates.evidence import BASE, Evidence, NoEvidence
from wergate.gates.gate import UNIT, Gate, GateResult
from wertune.scores.eval_report import EvalReport

_SMALLER = "lower lora.r or name fewer target_modules"


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


class TrainableGate(Gate):
    """Share of the parameters that were trained."""

    kind: Literal["trainable_percent"] = "trainable_percent"
    unit: Literal["%"] = Field("%", description=UNIT)
    limit: float = Field(gt=0, le=100, description="at most; lora.r and lora.target_modules make it")

    def _evaluate(self, evidence: Evidence) -> GateResult:
        cost = evidence.candidate.cost
        return self.judged(cost.trainable_percent, f"{cost.trainable_parameters:,} parameters trained", _SMALLER)


class AdapterSizeGate(Gate):
    """Size of the adapter's file."""

    kind: Literal["adapter_mb"] = "adapter_mb"
    unit: Literal["MB"] = Field("MB", description=UNIT)
    limit: float = Field(gt=0, description="at most")

    def _evaluate(self, evidence: Evidence) -> GateResult:
        return self.judged(evidence.candidate.cost.adapter_mb, "the adapter's file", _SMALLER)


class PeakMemoryGate(Gate):
    """Most memory held while transcribing."""

    kind: Literal["peak_memory_mb"] = "peak_memory_mb"
    unit: Literal["MB"] = Field("MB", description=UNIT)
    limit: float = Field(gt=0, description="at most; refused where it was not measured")

    def _evaluate(self, evidence: Evidence) -> GateResult:
        peak = evidence.candidate.cost.peak_memory_mb
        if not peak:
            raise NoEvidence("peak memory was not measured", "evaluate again where memory can be measured")
        return self.judged(peak, "most memory held while transcribing", "lower decode.batch_size or use 8-bit weights")


class RealTimeFactorGate(Gate):
    """Real-time factor relative to the base on the same machine in the same run."""

    kind: Literal["real_time_factor"] = "real_time_factor"
    unit: Literal["x base"] = Field("x base", description=UNIT)
    limit: float = Field(gt=0, description="at most: 1.5 is half as long again as the base takes")

    def _evaluate(self, evidence: Evidence) -> GateResult:
        cost = evidence.candidate.cost
        if not cost.real_time_factor or not cost.baseline_real_time_factor:
            raise NoEvidence("the real-time factors were not measured", "evaluate again, base and version in one run")
        ours, theirs = cost.real_time_factor, cost.baseline_real_time_factor
        detail = f"{ours:.4g} s a second of speech, {BASE} {theirs:.4g}"
        remedy = f"{_SMALLER}, or use a short context; evaluate again if the machine was busy"
        return self.judged(ours / theirs, detail, remedy)


class ProvenanceGate(Gate):
    """All origins known, and the test set the frozen one; none given: any test set will do."""

    kind: Literal["provenance"] = "provenance"
    unit: Literal["faults"] = Field("faults", description=UNIT)
    limit: Literal[0] = Field(0, description="origins that are not known, or another test set: none")
    test_digest: str | None = Field(None, min_length=1, description="of the frozen test set; a decision names it")

    def _evaluate(self, evidence: Evidence) -> GateResult:
        report = evidence.candidate
        faults = _unknown_origins(report)
        remedies = ["train from a clean git checkout and evaluate the registered version again"] if faults else []
        test = report.sets.get("test")
        if self.test_digest and (test is None or test.digest != self.test_digest):
            measured = test.digest if test else "no test set"
            faults.append(f"test set is {measured}, but the policy froze {self.test_digest}")
            remedies.append("evaluate on the frozen test set, or freeze the new one in the policy and say why")
        frozen = "the test set is the frozen one" if self.test_digest else "the policy freezes no test set"
        detail = "; ".join(faults) or f"all origins are known; {frozen}"
        return self.judged(float(len(faults)), detail, "; ".join(remedies))


class LeakageGate(Gate):
    """Clips of the test set that training had, or whose text or recording it had."""

    kind: Literal["leakage"] = "leakage"
    unit: Literal["clips"] = Field("clips", description=UNIT)
    limit: float = Field(0, ge=0, description="at most")

    def _evaluate(self, evidence: Evidence) -> GateResult:
        leaked = evidence.candidate.leakage
        such = f", such as {leaked[0]}" if leaked else ""
        detail = f"{len(leaked)} clips of the test set were in training{such}"
        return self.judged(float(len(leaked)), detail, "take them out of the training manifest and train again")

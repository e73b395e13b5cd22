"""Policies: what a file may say, all its faults at once, and the digest it is known by."""

import inspect
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from wergate.gates.kinds import AnyGate
from wergate.gates.kinds.accuracy import WerGate
from wergate.gates.kinds.robustness import SliceGate
from wergate.gates.policy import Policy, load_policy
from wertune.base.errors import ConfigError

WER = {"kind": "wer", "limit": 0.15}


def _write(folder: Path, **values: Any) -> Path:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({"staging": [WER], "production": [WER]} | values), encoding="utf-8")
    return path


def _fault(folder: Path, **values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_policy(_write(folder, **values))
    return str(caught.value)


def test_defaults_are_those_of_the_field(tmp_path: Path) -> None:
    policy = load_policy(_write(tmp_path))
    assert (policy.bootstrap.resamples, policy.bootstrap.confidence, policy.bootstrap.blocks) == (
        10_000,
        0.95,
        "speaker",
    )
    assert policy.approval.forbid_self
    assert policy.gates("production")[0] == WerGate(limit=0.15)
    assert policy.gates("staging")[0].blocks


def test_every_kind_has_a_name_of_its_own_and_the_shipped_policies_are_sound() -> None:
    every = get_args(get_args(AnyGate)[0])
    kinds = {kind.model_fields["kind"].default for kind in every}
    assert len(kinds) == len(every)
    assert not [kind for kind in every if inspect.isabstract(kind)]
    for path in Path("registry/policies").glob("*.yaml"):
        policy = load_policy(path)
        assert {gate.kind for gate in (*policy.staging, *policy.production)} == kinds


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    staging = [{"kind": "wer", "limit": 3}, {"kind": "bleu", "limit": 1}, {"kind": "cer", "limit": 0.1, "block": True}]
    fault = _fault(tmp_path, staging=staging, bootstrap={"resamples": 5}, approval={"expires_after_days": 0})
    assert "staging.0.wer.limit is 3" in fault
    assert "'bleu'" in fault
    assert "staging.2.cer.block is not a known key" in fault
    assert "bootstrap.resamples is 5" in fault
    assert "approval.expires_after_days is 0" in fault


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"staging": []}, "no gate blocks"),
        ({"staging": [WER | {"blocks": False}]}, "no gate blocks"),
        ({"staging": [WER, WER]}, "two gates are called wer_test"),
        ({"production": [WER | {"unit": "percent"}]}, "production.0.wer.unit"),
        ({"production": [WER | {"limit": float("nan")}]}, "production.0.wer.limit"),
        ({"staging": [{"limit": 1}]}, "staging.0 is {'limit': 1}, but must have 'kind'"),
        ({"staging": [{"kind": "bleu", "limit": 1}]}, "but must have 'kind' of 'wer', 'cer', "),
        ({"staging": ["wer"]}, "staging.0 is 'wer', but must be a mapping of keys to values"),
        (
            {"approval": {"expires_after_days": 1e300}},
            "approval.expires_after_days is 1e+300, but must be at most 36500",
        ),
        ({"bootstrap": {"resamples": 200, "confidence": 0.99}}, "must be >= 1000"),
        ({"staging": [WER, {"kind": "slice", "by": "duration", "edges_s": [5, 2], "limit": 1}]}, "sort the edges"),
        (
            {
                "staging": [WER, {"kind": "provenance", "test_digest": "a"}],
                "production": [WER, {"kind": "provenance", "test_digest": "b"}],
            },
            "freeze one test set",
        ),
    ],
)
def test_a_fault_is_refused_with_its_reason(tmp_path: Path, values: dict[str, Any], reason: str) -> None:
    assert reason in _fault(tmp_path, **values)


def test_two_gates_of_one_kind_need_a_name(tmp_path: Path) -> None:
    gates = [WER, WER | {"limit": 0.1, "blocks": False, "name": "wer_wished"}]
    assert [gate.title for gate in load_policy(_write(tmp_path, staging=gates)).staging] == ["wer_test", "wer_wished"]


def test_names_can_be_tags() -> None:
    assert SliceGate(by="channel", only="far field/room", limit=0.3).title == "slice_channel_far_field_room_test"


def test_the_digest_is_of_what_is_said_and_not_of_how() -> None:
    short = Policy.model_validate({"staging": [WER], "production": [WER]})
    full = Policy.model_validate_json(short.model_dump_json())
    other = Policy.model_validate({"staging": [WER | {"limit": 0.14}], "production": [WER]})
    assert short.digest == full.digest
    assert len({short.digest, other.digest}) == 2
    assert len(short.digest) == 64


def test_another_transition_is_refused() -> None:
    with pytest.raises(ConfigError, match="'archived', but must be staging or production"):
        Policy(staging=(WerGate(limit=1),), production=(WerGate(limit=1),)).gates("archived")


def test_a_policy_that_is_not_there_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the policy .*gone.yaml does not exist; `wertune init` makes one"):
        load_policy(tmp_path / "gone.yaml")

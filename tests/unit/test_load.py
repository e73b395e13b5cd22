"""The load test tells a lost answer from a crossed one, and both from a right one."""

import json

import pytest
from tests.trials.load import Answer, Load, _judge

MINE = Answer("my words", -0.5)


def _body(text: str, avg_logprob: float) -> str:
    return json.dumps({"predictions": [{"text": text, "duration_s": 1.5, "avg_logprob": avg_logprob}]})


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, _body("my words", -0.5), (1, 0, 0)),
        (200, _body("another's words", -0.5), (0, 0, 1)),
        (200, _body("my words", -0.6), (0, 0, 1)),
        (503, "busy", (0, 1, 0)),
        (0, "ConnectionResetError()", (0, 1, 0)),
    ],
)
def test_an_answer_is_right_lost_or_crossed(status: int, body: str, found: tuple[int, int, int]) -> None:
    load = Load()
    _judge(status, body, MINE, 0.1, load)
    assert (load.answered, len(load.failed), len(load.crossed)) == found

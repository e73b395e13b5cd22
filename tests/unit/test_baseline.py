"""The untouched base keeps Whisper's own rules: no boost, no empty text; the beams are those of the trial."""

from wertune.baseline import baseline_decode
from wertune.config import DecodeConfig


def test_nothing_of_the_domain_helps_the_base() -> None:
    decode = DecodeConfig(num_beams=4, term_boost=2.0, may_be_empty=True, batch_size=32)
    plain = baseline_decode(decode)
    assert (plain.term_boost, plain.may_be_empty) == (0.0, False)
    assert plain.model_copy(update={"term_boost": 2.0, "may_be_empty": True}) == decode

"""A term's tokens get their bonus, once; what turns out to be no term gives it back."""

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wertune.base.config import DecodeConfig
from wertune.whisper.boost import TermBoost, doubts
from wertune.whisper.model import Whisper

VOCABULARY = 12
BONUS = 1.5
UNLIKELY = -5.0
END = VOCABULARY - 1
CPU = torch.device("cpu")

LoadTiny = Callable[..., Whisper]
tokens = st.integers(0, VOCABULARY - 2)


def _gain(boost: TermBoost, text: Sequence[int], log_probabilities: Sequence[float] | None = None) -> float:
    """What a text's score gains, its end included, where its tokens are so likely; where nothing is said, unlikely."""
    total, places = 0.0, boost.start(1, CPU)
    own = [*(log_probabilities or [UNLIKELY] * len(text)), UNLIKELY]
    for token, log_probability in zip([*text, END], own, strict=True):
        scores = torch.full((1, VOCABULARY), log_probability)
        places.change(scores)
        total += float(scores[0, token]) - log_probability
        places.go_on(torch.tensor([0]), torch.tensor([token]), torch.tensor([log_probability]))
    return total


@given(st.lists(tokens, max_size=20), st.integers(0, 3))
def test_of_terms_without_a_common_token_whole_ones_count_until_one_is_said_twice(text: list[int], split: int) -> None:
    terms = [[0], [1, 2], [3, 4, 5], [6, 7, 8, 9]][: split + 1]
    ends = [(i + len(term), term) for term in terms for i in range(len(text)) if text[i : i + len(term)] == term]
    counted, said = 0, []
    for _, term in sorted(ends):
        counted += len(term)
        if term in said:
            break
        said.append(term)
    assert _gain(TermBoost(terms, BONUS, 0.0), text) == pytest.approx(BONUS * counted)


@given(st.lists(st.lists(tokens, min_size=1, max_size=4), min_size=1, max_size=5), st.lists(tokens, max_size=12))
def test_no_text_gains_more_than_the_bonus_of_each_token_and_none_loses(
    terms: list[list[int]], text: list[int]
) -> None:
    gain = _gain(TermBoost(terms, BONUS, 0.0), text)
    assert -1e-4 <= gain <= BONUS * len(text) + 1e-4
    if not any(text[i : i + len(term)] == term for term in terms for i in range(len(text))):
        assert gain == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("terms", "text", "counted"),
    [
        ([[1, 2], [1, 2, 3]], [1, 2, 3], 3),  # the longer of two
        ([[1, 2], [1, 2, 3]], [1, 2, 4], 2),  # the shorter stays when the longer fails
        ([[1, 2, 3], [2, 4]], [1, 2, 4], 2),  # one fails and the other has begun inside it
        ([[1, 2]], [1, 1, 2], 2),
        ([[1, 2]], [1, 2, 1, 2], 4),
        ([[1, 2]], [1], 0),
        ([[1, 2]], [1, 2, 1, 2, 1, 2], 4),  # a loop gains no more
        ([[1, 2], [3]], [1, 2, 3, 1, 2, 3, 3], 5),
    ],
)
def test_terms_that_share_tokens(terms: list[list[int]], text: list[int], counted: int) -> None:
    assert _gain(TermBoost(terms, BONUS, 0.0), text) == pytest.approx(BONUS * counted)


def test_each_hypothesis_has_its_own_place_in_the_terms() -> None:
    boost = TermBoost([[1, 2]], BONUS, 0.0)
    scores = torch.full((2, VOCABULARY), UNLIKELY)
    places = boost.start(3, CPU)
    places.go_on(torch.tensor([2, 0]), torch.tensor([1, 0]), torch.full((2,), UNLIKELY))  # the second one has ended
    places.change(scores)
    gained = (scores - UNLIKELY).tolist()
    assert gained[0] == [-BONUS if t not in (1, 2) else {1: 0.0, 2: BONUS}[t] for t in range(VOCABULARY)]
    assert gained[1] == [BONUS if t == 1 else 0.0 for t in range(VOCABULARY)]


@given(
    st.lists(st.lists(tokens, min_size=1, max_size=4), min_size=1, max_size=5),
    st.lists(st.tuples(tokens, st.floats(-6, 0)), max_size=12),
    st.floats(0, 2),
)
def test_a_token_gains_what_it_lacks_to_certainty_and_no_more_than_asked_beyond(
    terms: list[list[int]], text: list[tuple[int, float]], beyond: float
) -> None:
    written, own = [token for token, _ in text], [log_probability for _, log_probability in text]
    gain = _gain(TermBoost(terms, BONUS, beyond), written, own)
    assert -1e-4 <= gain <= sum(min(BONUS, beyond - log_probability) for log_probability in own) + 1e-4
    assert gain <= _gain(TermBoost(terms, BONUS, BONUS), written, own) + 1e-4


def test_a_terms_end_that_follows_from_its_beginning_earns_little() -> None:
    sure, doubtful = [-4.0, 0.0, 0.0, 0.0], [-4.0, -0.5, -2.0, 0.0]
    boost = TermBoost([[1, 2, 3, 4]], BONUS, 0.0)
    assert _gain(boost, [1, 2, 3, 4], sure) == pytest.approx(BONUS)
    assert _gain(boost, [1, 2, 3, 4], doubtful) == pytest.approx(BONUS + 0.5 + BONUS)
    assert _gain(boost, [1, 2, 3, 0], doubtful) == pytest.approx(0)  # what it had gained goes back
    assert _gain(TermBoost([[1, 2, 3, 4]], BONUS, 0.25), [1, 2, 3, 4], sure) == pytest.approx(BONUS + 3 * 0.25)
    assert _gain(TermBoost([[1, 2, 3, 4]], BONUS, BONUS), [1, 2, 3, 4], sure) == pytest.approx(4 * BONUS)
    assert boost.total([1, 2, 3, 4], -4.0) == pytest.approx(4.0)  # of a whole text: what it lacks to certainty
    assert boost.total([1, 2, 3, 4], -40.0) == pytest.approx(4 * BONUS)
    assert boost.total([1, 2, 3, 0], -40.0) == pytest.approx(0)


def _written(whisper: Whisper, num_beams: int, boost: float) -> list[str]:
    features = torch.randn(2, 80, 64, generator=torch.Generator().manual_seed(0))
    decode = DecodeConfig(num_beams=num_beams, term_boost=boost, boost_floor=None)
    return [written.text for written in whisper.generate(features, [12, 12], decode)]


@pytest.mark.parametrize(
    ("log_probabilities", "decode", "doubtful"),
    [
        ([-0.5, -1.4], DecodeConfig(term_boost=3), False),
        ([-0.7, -1.4], DecodeConfig(term_boost=3), True),
        ([-0.7, -1.4], DecodeConfig(term_boost=0), False),
        ([-0.7, -1.4], DecodeConfig(term_boost=3, boost_floor=None), False),
        ([], DecodeConfig(term_boost=3), False),
    ],
)
def test_a_text_is_doubtful_by_its_own_mean(
    log_probabilities: list[float], decode: DecodeConfig, doubtful: bool
) -> None:
    assert doubts(log_probabilities, decode) == doubtful


def test_what_the_model_doubts_is_written_as_without_a_boost(load_tiny: LoadTiny) -> None:
    """A random model doubts all that it writes."""
    whisper = load_tiny()
    whisper.wording.terms = ("CorpPass", "MediShield Life")
    features = torch.randn(2, 80, 64, generator=torch.Generator().manual_seed(0))
    texts = {
        (boost, floor): [
            written.text
            for written in whisper.generate(features, [12, 12], DecodeConfig(term_boost=boost, boost_floor=floor))
        ]
        for boost, floor in ((0.0, None), (100.0, None), (100.0, -1.0))
    }
    assert texts[100.0, -1.0] == texts[0.0, None] != texts[100.0, None]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_model_writes_the_terms_that_it_is_told_to(load_tiny: LoadTiny, num_beams: int) -> None:
    whisper = load_tiny()
    whisper.wording.terms = ("CorpPass", "MediShield Life")
    plain, boosted = (_written(whisper, num_beams, boost) for boost in (0.0, 100.0))
    assert not any(term in text for text in plain for term in whisper.wording.terms)
    assert all(any(term in text for term in whisper.wording.terms) for text in boosted)
    whisper.wording.terms = ()
    assert _written(whisper, num_beams, 100.0) == plain

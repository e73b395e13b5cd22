"""Time of a bootstrap: vectorised against the plain loop, in one run on one machine."""

import numpy as np

from wertune.bench.rows import timed
from wertune.scores.bootstrap import Floats, draws, ratio, resampled_sums

UTTERANCES = 2_000
RESAMPLES = 10_000


def bench_bootstrap() -> str:
    """Seconds of 10,000 resamples over 2,000 utterances as blocks, and that both ways give the same rates."""
    generator = np.random.default_rng(0)
    words = generator.integers(3, 20, UTTERANCES)
    sums = np.stack([generator.binomial(words, 0.1), words], axis=1).astype(np.float64)
    rates: list[Floats] = []
    fast_s = timed(lambda: rates.append(ratio(resampled_sums(sums, RESAMPLES, seed=0))))
    slow_s = timed(lambda: rates.append(_plain_loop(sums)))
    fast, slow = rates
    same = "the same rates" if np.array_equal(fast, slow) else "OTHER RATES: a fault"
    return (
        f"bootstrap of {RESAMPLES:,} resamples over {UTTERANCES:,} utterances: numpy {fast_s:.2f} s, "
        f"plain loop {slow_s:.2f} s, {slow_s / fast_s:.0f} times as long, {same}"
    )


def _plain_loop(sums: Floats) -> Floats:
    """The same draws, one utterance at a time."""
    errors, words = sums[:, 0].tolist(), sums[:, 1].tolist()
    rates = []
    for chunk in draws(len(sums), RESAMPLES, seed=0):
        for drawn in chunk.tolist():
            wrong = said = 0.0
            for index in drawn:
                wrong += errors[index]
                said += words[index]
            rates.append(wrong / said)
    return np.array(rates)

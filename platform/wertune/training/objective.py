"""What a trial minimises, on the sets as they are and on sets drawn anew from their clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wertune.scores.bootstrap import Floats, ratio, resampled_sums
from wertune.scores.metrics import Scores

REDRAWS, SEED = 200, 0  # one draw more or less is half a percent


@dataclass(frozen=True)
class Objective:
    """What a trial minimises: validation WER, and a penalty once the retention WER rises above a margin."""

    retention_baseline_wer: float
    retention_margin: float
    penalty: float

    def __call__(self, validation_wer: float, retention_wer: float | None) -> float:
        if retention_wer is None:
            return validation_wer
        excess = retention_wer - self.retention_baseline_wer - self.retention_margin
        return validation_wer + self.penalty * max(0.0, excess)

    def redrawn(self, validation: Scores, retention: Scores | None) -> tuple[float, ...]:
        """The objective on sets drawn anew, with replacement, from the clips of both; the same draws for every trial.

        So two trials compare draw by draw (Bisani & Ney 2004): what differs in nearly all of them is no chance.
        """
        kept = redrawn_wer(_counts(retention)) if retention else [None] * REDRAWS
        both = zip(redrawn_wer(_counts(validation)).tolist(), list(kept), strict=True)
        return tuple(round(self(of_validation, of_retention), 5) for of_validation, of_retention in both)


def redrawn_wer(counts: Sequence[tuple[int, int]]) -> Floats:
    """WER (REDRAWS,) over utterances drawn anew, of each's errors and words."""
    return ratio(resampled_sums(np.array(counts, dtype=np.float64), REDRAWS, SEED))


def _counts(scores: Scores) -> list[tuple[int, int]]:
    return [(each.words.errors, each.words.length) for each in scores.utterances]

"""How strong an adapter may be, and what its terms may be paid: neither costs any training.

`python -m tests.trials.strengths ADAPTER` has each adapter's folder write validation and retention's validation at
every strength and boost, and prints a row each: with the beams of serving, and with those of a trial's epochs, whose
ranks choose.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
from scipy.stats import spearmanr

from wertune.base.config import TrialConfig, load_project, with_overrides
from wertune.scores.metrics import Scores
from wertune.training.prepare import Prepared, prepare
from wertune.training.train import validation_scores
from wertune.whisper.adapter import at_strength, load_adapter

HEAD = (
    "| adapter | strength | boost | validation WER | term recall, precision | retention WER "
    "| WER at {} beams | retention |"
)


def numbers(text: str) -> tuple[float, ...]:
    """Of "0.7,0.8"."""
    return tuple(map(float, text.split(",")))


def rates(
    prepared: Prepared, config: TrialConfig, adapter: Path, strength: float
) -> list[tuple[Scores, Scores | None]]:
    """Validation and retention's validation as the project serves, and as its trials are judged."""
    whisper = load_adapter(prepared.whisper(config.quantization), adapter)
    data, found = prepared.training_data(config.context, whisper.mel_bins), list[tuple[Scores, Scores | None]]()
    with at_strength(whisper, strength / config.lora.strength):  # as it was saved, it has the project's
        for beams in (config.decode.num_beams, config.train.evaluation_beams):
            each = with_overrides(config, {"train.evaluation_beams": beams}, "beams")
            found.append(validation_scores(each, whisper, data))
    return found


def table(project: Path, adapters: Sequence[Path], strengths: Sequence[float], boosts: Sequence[float]) -> None:
    """Prints it as it comes, and last whether fewer beams rank as those of serving do."""
    prepared = prepare(project, load_project(project))
    trial, ranked = prepared.project.trial, list[tuple[float, float]]()
    print(HEAD.format(trial.train.evaluation_beams) + "\n" + "|---" * HEAD.count(" | ") + "|---|", flush=True)
    for adapter, boost, strength in product(adapters, boosts, strengths):
        config = with_overrides(trial, {"decode.term_boost": boost}, "boost")
        (served, kept), (judged, kept_then) = rates(prepared, config, adapter, strength)
        ranked.append((served.wer, judged.wer))
        print(
            f"| {adapter.name} | {strength} | {boost} | {served.wer:.2%} | {served.terms.recall:.1%}, "
            f"{served.terms.precision:.1%} | {_rate(kept)} | {judged.wer:.2%} | {_rate(kept_then)} |",
            flush=True,
        )
    if len(ranked) > 2:
        print(f"\nSpearman of both: {spearmanr(*zip(*ranked, strict=True)).statistic:.2f}")


def _rate(scores: Scores | None) -> str:
    return f"{scores.wer:.2%}" if scores else "-"


def main() -> None:
    """The table from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("adapters", type=Path, nargs="+")
    parser.add_argument("--project", type=Path, default=Path("projects/sg_gov"))
    parser.add_argument("--strengths", type=numbers, default=(0.7, 0.8, 0.9))
    parser.add_argument("--boosts", type=numbers, default=(2.5,))
    given = parser.parse_args()
    torch.set_num_threads(1)
    table(given.project, given.adapters, given.strengths, given.boosts)


if __name__ == "__main__":
    main()

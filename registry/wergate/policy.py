"""What an adapter must reach to climb, written down and versioned: `registry/policies/<project>.yaml`."""

from pathlib import Path

from pydantic import Field

from wertune.config import Frozen, load_yaml


class Policy(Frozen):
    """Limits of the step from None to Staging."""

    max_test_wer: float = Field(gt=0, le=1, description="WER on the frozen test set")
    min_relative_reduction: float = Field(0.0, ge=0, le=1, description="of the untouched base's test WER")


def load_policy(path: Path) -> Policy:
    """The policy, or a ConfigError that lists all its faults."""
    return load_yaml(path, Policy)

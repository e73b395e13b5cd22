"""`python -m tests.trials.fuzz --seconds 300`: mutated files for as long; a finding is shrunk and kept in the corpus.

`--write-corpus` writes the corpus' first files again, from code.
"""

import argparse
import hashlib
import random
import sys
import time
import traceback

from hypothesis import HealthCheck, given, seed, settings
from tests.trials.fuzz.mutations import mutated
from tests.trials.fuzz.targets import CORPUS, TARGETS, Target

EXAMPLES = 100  # between two looks at the clock


def write_corpus() -> None:
    """The valid files, the cut ones and the lying ones."""
    for fuzzed in TARGETS.values():
        (CORPUS / fuzzed.name).mkdir(parents=True, exist_ok=True)
        for name, data in fuzzed.valid().items():
            (CORPUS / fuzzed.name / name).write_bytes(data)


def fuzz(fuzzed: Target, seconds: float) -> int:
    """The number of files that were read before the time was over; a finding is written to the corpus and raised."""
    corpus, read, last = fuzzed.corpus, 0, b""

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mutated(corpus, fuzzed.fields_of))
    def attempt(data: bytes) -> None:
        nonlocal read, last
        read, last = read + 1, data
        fuzzed.check(data)

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            seed(random.getrandbits(64))(attempt)()
        except Exception:
            path = CORPUS / fuzzed.name / f"finding-{hashlib.sha256(last).hexdigest()[:8]}"
            path.write_bytes(last)  # hypothesis tries its smallest one last
            print(f"{path} holds a finding of {len(last)} bytes", file=sys.stderr)
            raise
    return read


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=TARGETS, help="all where it is not given")
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--write-corpus", action="store_true")
    given_ = parser.parse_args()
    if given_.write_corpus:
        write_corpus()
        return 0
    failed = 0
    for name in [given_.target] if given_.target else TARGETS:
        try:
            print(f"{name}: {fuzz(TARGETS[name], given_.seconds)} files read, no finding", flush=True)
        except Exception:
            traceback.print_exc()
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())

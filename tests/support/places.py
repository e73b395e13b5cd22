"""Where the checkout is, what tests start as processes, and the demo."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRIALS = ROOT / "tests" / "trials"
DEMO = ROOT / "projects" / "sg_gov"
ACTORS = ("amazon-queen", "steel-sky")  # how the demo's speakers out of games begin

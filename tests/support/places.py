"""Where the checkout is, and the demo in it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "projects" / "sg_gov"

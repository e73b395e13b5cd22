"""What a Ray worker has to import before it can work."""

import subprocess
import sys

UNWANTED = ("mlflow", "optuna", "pandas", "sqlalchemy", "torch._inductor.compile_fx")


def test_a_worker_needs_neither_the_drivers_libraries_nor_the_stores_nor_torchs_compiler() -> None:
    """Ray Tune itself does not go without pandas, and so comes first."""
    program = (
        "import sys, ray.tune\n"
        f"sys.modules.update(dict.fromkeys({UNWANTED}))\n"  # whoever imports one of them gets an ImportError
        "import wertune.search.worker\n"
        f"print([name for name in {UNWANTED} if sys.modules[name]])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr

"""Time of a whole ``debug=fast`` command relative to ``import torch``, W&B off and offline.

    python benchmarks/start.py [--repeats 9]

The commands take turns, each in its own process. ``--without-uncompiled`` measures them with
unmodified torch optimizers (see ``optim/uncompiled.py``).

Needs a quiet machine. Prints Markdown: medians and ranges of wall time; ratios are within a turn.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.update import print_circumstances

ROOT = Path(__file__).parent.parent
LIMITS = {"disabled": 2.0, "offline": 2.6}  # wandb.mode -> debug=fast / import torch, at most
UNMODIFIED = """
import runpy, sys
import optim.uncompiled
optim.uncompiled.leave_compiler_out = lambda: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="runs of each process")
    parser.add_argument("--without-uncompiled", action="store_true")
    options = parser.parse_args()
    print_circumstances()
    start = ["-c", UNMODIFIED] if options.without_uncompiled else []
    alone: list[float] = []
    commands: dict[str, list[float]] = {mode: [] for mode in LIMITS}
    for _ in range(options.repeats):
        alone.append(seconds_of("-c", "import torch"))
        for mode, seconds in commands.items():
            seconds.append(seconds_of(*start, str(ROOT / "train.py"), f"wandb.mode={mode}"))
    print(f"\n| n = {options.repeats} | s | / import torch | at most |")
    print("| --- | --- | --- | --- |")
    print(f"| import torch | {spread(alone)} | 1 | |")
    for mode, seconds in commands.items():
        ratios = [total / imported for total, imported in zip(seconds, alone, strict=True)]
        print(f"| debug=fast, W&B {mode} | {spread(seconds)} | {spread(ratios)} | {LIMITS[mode]} |")


def seconds_of(*arguments: str) -> float:
    """Wall seconds of a Python process; scripts get ``debug=fast`` and a run directory."""
    with tempfile.TemporaryDirectory() as folder:
        more = (
            ["debug=fast", f"hydra.run.dir={folder}/run"] if arguments[-1][:6] == "wandb." else []
        )
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments, *more],
            check=True,
            capture_output=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        return time.perf_counter() - started


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()

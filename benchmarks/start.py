"""What a process costs before it has learned anything: seconds to its first update, memory.

    python benchmarks/start.py [--repeats 5]

Beside ``import torch`` alone, each in processes of its own that take turns. To the first update is
what ``startup_seconds`` of the summary says, from the start of the process on; memory is the
greatest resident size, as ``peak_memory_bytes`` of the summary, of the process alone (W&B's service
is another). A further job is one more of a process that has had some: from its config to its first
update. Wall time, on a quiet machine. Prints Markdown: medians and ranges. ``--smoke`` makes it
short.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.speed import ROOT, composed, print_circumstances, spread, timed
from core.job import Job
from train import run

JOB = ("model=lightcnn", "optim=sgd_cosine", "trainer.max_epochs=2", "trainer.progress=false")
IMPORT = """
from trainer.distributed.device import peak_memory_bytes  # imports torch, and next to nothing else
import torch
print(peak_memory_bytes(torch.device("cpu")), flush=True)
"""


def importing() -> tuple[float, float]:
    """Wall seconds until torch is imported; the greatest resident size until then, in MB."""
    began = time.perf_counter()
    command = [sys.executable, "-c", IMPORT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        size = process.stdout.readline()
        seconds = time.perf_counter() - began
    return seconds, int(size) / 1e6


def job(folder: str, *overrides: str) -> tuple[float, float]:
    """Seconds to the first update of the main job, and its greatest resident size in MB."""
    run_dir = tempfile.mkdtemp(dir=folder)
    command = [str(ROOT / "train.py"), *JOB, f"data.root={folder}/datasets", *overrides]
    timed([*command, f"hydra.run.dir={run_dir}"])
    summary = json.loads((Path(run_dir) / "summary.json").read_text())
    return summary["startup_seconds"], summary["peak_memory_bytes"] / 1e6


def compare_processes(folder: str, repeats: int) -> None:
    job(folder, "wandb.mode=disabled")  # prepares the data set
    rows: dict[str, list[tuple[float, float]]] = {"import torch": [], "disabled": [], "offline": []}
    for _ in range(repeats):
        rows["import torch"].append(importing())
        for mode in ("disabled", "offline"):
            rows[mode].append(job(folder, f"wandb.mode={mode}"))
    print(f"\n| n = {repeats} | s | ratio | greatest resident size, MB | ratio |")
    print("| --- | --- | --- | --- | --- |")
    alone = rows["import torch"]
    for name, found in rows.items():
        seconds, sizes = zip(*found, strict=True)
        ratios = [[own / torchs for own, torchs in zip(f, t, strict=True)]
                  for f, t in zip(found, alone, strict=True)]  # fmt: skip
        times, memories = zip(*ratios, strict=True)
        label = name if name == "import torch" else f"main job, W&B {name}"
        print(
            f"| {label} | {spread(seconds)} | {spread(times)} | {spread(sizes)} | "
            f"{spread(memories)} |",
            flush=True,
        )


def compare_jobs(folder: str, jobs: int) -> None:
    seconds, sizes = [], []
    for number in range(jobs):
        config = composed(
            *JOB, f"data.root={folder}/datasets", "wandb.mode=disabled", f"seed={number}"
        )
        run_dir = tempfile.mkdtemp(dir=folder)
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            run(config, Job(run_dir=run_dir, started_at=time.time()))
        seconds.append(json.loads((Path(run_dir) / "summary.json").read_text())["startup_seconds"])
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        sizes.append(pages * resource.getpagesize() / 1e6)
    print(f"\nA further job of a process, n = {jobs - 1}: {spread(seconds[1:])} s to its first")
    print(f"update. Resident after the first {sizes[0]:.0f} MB, after {jobs // 2} jobs")
    print(f"{sizes[jobs // 2 - 1]:.0f} MB, after {jobs} {sizes[-1]:.0f} MB.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="of each process")
    parser.add_argument("--jobs", type=int, default=50, help="of one process")
    parser.add_argument("--smoke", action="store_true", help="next to nothing: it runs")
    options = parser.parse_args()
    print_circumstances()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        compare_processes(folder, 1 if options.smoke else options.repeats)
        compare_jobs(folder, 3 if options.smoke else options.jobs)


if __name__ == "__main__":
    main()

"""Many jobs of a sweep in one process: constant memory, and fast starts."""

import gc
import statistics
import time
from pathlib import Path

import pytest

from core.job import Job
from tests.conftest import QUIET
from tests.trainer.interrupting import summary
from train import run

NUM_JOBS = 50
WARM_UP_JOBS = 15  # allocators and caches fill up first
GROWTH_BYTES = 20 * 2**20  # leaking the model, optimizer and data of each job would cost 200 MB
START_SECONDS = 0.2  # from the resolved config to the first update


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits")
def test_many_jobs_start_fast_and_leak_no_memory(composed, data_root, tmp_path):
    sizes, starts = [], []
    for index in range(NUM_JOBS):
        config = composed(*QUIET, "debug=fast", f"data.root={data_root}", f"seed={index}")
        run_dir = tmp_path / str(index)
        run_dir.mkdir()
        run(config, Job(run_dir=str(run_dir), started_at=time.time()))
        gc.collect()
        sizes.append(resident_bytes())
        starts.append(summary(run_dir)["startup_seconds"])
    assert sizes[-1] - sizes[WARM_UP_JOBS] < GROWTH_BYTES, [size >> 20 for size in sizes]
    assert statistics.median(starts) < START_SECONDS


def resident_bytes():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024

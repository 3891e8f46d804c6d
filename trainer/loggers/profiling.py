"""A few updates under torch's profiler."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from core.errors import ConfigError
from core.files import write_text
from trainer.loggers.run_log import RunLog

WAIT, WARMUP = 8, 2  # updates before the profile: the first are slow, and so are the profiler's
ROWS = 50


@contextmanager
def profiled(
    num_steps: int | None, planned: int, run_log: RunLog, device: torch.device
) -> Iterator[Callable[[], None]]:
    """Yields what to call after each update; a trace and a table are left in the run directory.

    Without ``num_steps``, and in processes other than the first, nothing is profiled.

    Args:
        planned: updates that are still to be made.

    Raises:
        ConfigError: they are too few.
    """
    if num_steps is None:
        yield lambda: None
        return
    if planned < (needed := WAIT + WARMUP + num_steps):
        raise ConfigError(
            f"trainer.profile_steps={num_steps} needs {needed} updates, the first {WAIT + WARMUP} "
            f"to warm up; there are {planned} to make"
        )
    if not run_log.writers:
        yield lambda: None
        return

    def keep(profiler: profile) -> None:
        folder = run_log.run_dir / "profile"
        folder.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(folder / "trace.json"))
        by = "self_cpu_time_total" if device.type == "cpu" else "self_device_time_total"
        table = profiler.key_averages().table(sort_by=by, row_limit=ROWS)
        write_text(table, folder / "table.txt")
        run_log.print(
            f"profile of {num_steps} updates: {folder}/table.txt, and trace.json for "
            "https://ui.perfetto.dev; the run's times include profiling"
        )

    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    steps = schedule(wait=WAIT, warmup=WARMUP, active=num_steps, repeat=1)
    with profile(
        activities=activities,
        schedule=steps,
        on_trace_ready=keep,
        acc_events=True,  # there is one cycle; torch 2.11 warns of losing others
    ) as profiler:
        yield profiler.step

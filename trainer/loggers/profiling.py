"""Profile a few updates with torch's profiler."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from core.errors import ConfigError
from core.files import write_text
from trainer.loggers.run_log import RunLog

WAIT, WARMUP = 8, 2  # updates before the profile, since the first ones are slow
ROWS = 50


@contextmanager
def profiled(
    num_steps: int | None, planned: int, run_log: RunLog, device: torch.device
) -> Iterator[Callable[[], None]]:
    """Yields a function to call after each update; writes a trace and a table to the run directory.

    Does nothing without ``num_steps``, and on ranks other than 0.

    Args:
        planned: number of updates still to be made.

    Raises:
        ConfigError: if there are too few of them.
    """
    if num_steps is None:
        yield lambda: None
        return
    if planned < (needed := WAIT + WARMUP + num_steps):
        raise ConfigError(
            f"trainer.profile_steps={num_steps} needs {needed} updates, the first {WAIT + WARMUP} "
            f"to warm up; only {planned} remain"
        )
    if not run_log.writers:
        yield lambda: None
        return

    def save_profile(profiler: profile) -> None:
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
        on_trace_ready=save_profile,
        acc_events=True,  # one cycle only; avoids a warning of torch 2.11
    ) as profiler:
        yield profiler.step

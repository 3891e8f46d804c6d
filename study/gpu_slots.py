"""Jobs that run at once share out the GPUs of the machine: each worker process sees its own."""

import json
import os
import time
from functools import cache
from pathlib import Path
from typing import IO, Any

from core.files import lock

SLOTS = "TRAIN_GPU_SLOTS"  # environment: where workers find which GPUs are free for them


def offer(slots: list[str], folder: str) -> None:
    """Let worker processes that start from now on share the ``slots``; locks are in ``folder``."""
    os.environ[SLOTS] = json.dumps({"folder": folder, "slots": slots})


def gpu_slots(trainer: Any, jobs_per_gpu: int) -> list[str]:
    """For each job that may run at once the GPUs it may see, every GPU once before any twice."""
    if trainer.accelerator not in ("auto", "cuda"):
        return []
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible[:count] if visible != [""] else [str(number) for number in range(count)]
    size = 1 if trainer.devices == "auto" else trainer.devices
    groups = [names[first : first + size] for first in range(0, count - size + 1, size)]
    return [",".join(group) for group in groups] * jobs_per_gpu


def take_gpu() -> None:
    """Let this worker process see the GPUs of a free slot only, before it uses any."""
    if SLOTS in os.environ:
        shared = json.loads(os.environ[SLOTS])
        place, _ = free_slot(Path(shared["folder"]), len(shared["slots"]))
        os.environ["CUDA_VISIBLE_DEVICES"] = shared["slots"][place]


@cache
def free_slot(folder: Path, count: int) -> tuple[int, IO[str]]:
    """The number of a slot that no other process has, and the lock on it while this one lives."""
    while True:
        for number in range(count):
            try:
                return number, lock(folder / str(number))
            except BlockingIOError:
                continue
        time.sleep(1)  # more workers than places: the settings asked for so many

"""Divide the machine's GPUs among concurrent jobs: each worker process sees only its own."""

import json
import os
import time
from functools import cache
from pathlib import Path
from typing import IO, Any

from core.files import lock

SLOTS = "TRAIN_GPU_SLOTS"  # environment: the slots, and the folder of their locks


def offer(slots: list[str], folder: str) -> None:
    """Let worker processes started from now on share ``slots``, with lock files in ``folder``."""
    os.environ[SLOTS] = json.dumps({"folder": folder, "slots": slots})


def gpu_slots(trainer: Any, jobs_per_gpu: int) -> list[str]:
    """The GPUs that each concurrent job may see; every GPU is used once before any is shared."""
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
    """Restrict this worker process to the GPUs of a free slot; called before it uses any."""
    if SLOTS in os.environ:
        shared = json.loads(os.environ[SLOTS])
        place, _ = free_slot(Path(shared["folder"]), len(shared["slots"]))
        os.environ["CUDA_VISIBLE_DEVICES"] = shared["slots"][place]


@cache
def free_slot(folder: Path, count: int) -> tuple[int, IO[str]]:
    """Lock a free slot for the life of this process; returns its number and the lock."""
    while True:
        for number in range(count):
            try:
                return number, lock(folder / str(number))
            except BlockingIOError:
                continue
        time.sleep(1)  # the settings ask for more workers than there are slots

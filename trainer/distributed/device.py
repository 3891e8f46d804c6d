"""Device, precision, process setup and memory figures of one process."""

import ctypes
import gc
import os
import platform
import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.errors import ConfigError, OutOfMemory
from core.ranks import Ranks, started_by_launch, started_by_torchrun
from core.schema import TrainerSettings
from data.draws import PROCESS_STREAM, seed_process
from data.loader import Loader

NUM_THREADS = torch.get_num_threads()  # torch's choice: the machine's cores or OMP_NUM_THREADS
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # constants from malloc.h
KEPT_BYTES = 1 << 30
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_accelerator(name: str) -> str:
    """``cpu``, ``cuda`` or ``mps``; ``auto`` chooses the best one available."""
    present = {"cuda": torch.cuda.is_available, "mps": torch.mps.is_available, "cpu": lambda: True}
    if name == "auto":
        return next(kind for kind, is_present in present.items() if is_present())
    if not present[name]():
        raise ConfigError(f"trainer.accelerator={name}: this machine has no {name} device")
    return name


def choose_device(settings: TrainerSettings, local_rank: int) -> torch.device:
    kind = choose_accelerator(settings.accelerator)
    if kind != "cuda":
        return torch.device(kind)
    count = torch.cuda.device_count()
    if count == 1 and started_by_torchrun() and not started_by_launch():
        local_rank = 0  # the cluster exposes a single device to each process
    if local_rank >= count:
        raise ConfigError(
            f"trainer.devices={settings.devices} but this machine has {count} CUDA devices"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def choose_precision(name: str, device: torch.device) -> str:
    """``fp32``, ``bf16`` or ``fp16``; ``auto`` chooses bf16 where the hardware supports it."""
    if name == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        if device.type == "cpu" and "avx512_bf16" in cpu_info("flags").split():
            return "bf16"
        return "fp32"
    return name


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def keep_out_of_autocast(layer: nn.Module, device_type: str) -> None:
    """Disable autocast in a layer, so that it computes in the precision of its weights.

    Not with hooks: ``torch.compile`` cannot trace a context that spans two of them.
    """
    layer.forward = partial(outside_autocast, layer.forward, layer, device_type)


def outside_autocast(
    forward: Callable[..., Any], layer: nn.Module, device_type: str, *args: Any, **kwargs: Any
) -> Any:
    dtype = next(layer.parameters()).dtype
    with torch.autocast(device_type, enabled=False):
        return forward(
            *in_dtype(args, dtype), **{key: in_dtype(value, dtype) for key, value in kwargs.items()}
        )


def in_dtype(value: Any, dtype: torch.dtype) -> Any:
    """Cast a tensor, a packed sequence or a tuple of them to ``dtype``; None stays None."""
    if type(value) is tuple:
        return tuple(in_dtype(part, dtype) for part in value)
    return value if value is None else value.to(dtype)


def keep_recurrent_layers_out_of_autocast(model: nn.Module, device_type: str) -> None:
    """Disable autocast in recurrent layers on CUDA.

    cuDNN runs them in fp16 even if autocast is bf16, and a bf16 run has no loss scaling.
    """
    for layer in model.modules():
        if isinstance(layer, nn.RNNBase) and device_type == "cuda":
            keep_out_of_autocast(layer, device_type)


def eager(compiled: bool | str) -> AbstractContextManager:
    """Context that runs a compiled model eagerly."""
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def prepare_process(
    settings: TrainerSettings, seed: int, ranks: Ranks, device: torch.device
) -> None:
    """Set RNGs, threads and math modes; every run sets all of them, so none leaks into the next."""
    keep_freed_memory()
    if settings.deterministic:  # cuBLAS needs this before its first call
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    seed_process(device, seed, PROCESS_STREAM, ranks.rank)
    torch.set_num_threads(settings.num_threads or max(1, NUM_THREADS // ranks.local_world_size))
    if settings.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(settings.deterministic)  # slow: imports the compiler
    torch.backends.cudnn.benchmark = not settings.deterministic
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it; no effect on the CPU
    if device.type == "cuda":
        gc.collect()  # free GPU memory held by an earlier job's reference cycles
        torch.cuda.reset_peak_memory_stats(device)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next update instead of returning it to the kernel.

    By default it returns large blocks at once, and the page faults of allocating them again took up
    to a third of an update. No effect with other C libraries.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def synchronize(device: torch.device) -> None:
    """Wait until all work queued on the device is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def explain_oom(data: Loader) -> Iterator[None]:
    """Replace out-of-memory errors by one that says in one line what to try.

    Raises:
        OutOfMemory: instead of the allocator's error.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        # the CPU allocator raises a plain RuntimeError
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in text:
            raise
        request = re.search(r"allocate ([\d.]+ [KMG]iB)", text)
        size = f" when allocating {request[1]}" if request else ""
        raise OutOfMemory(
            f"out of memory on {data.device}{size}, at data.batch_size={data.batch_size}, "
            f"trainer.accumulate_steps={data.accumulate_steps}, "
            f"data.eval_batch_size={data.eval_batch_size}: raise accumulate_steps, which needs "
            "less memory for the same updates, or reduce the batch sizes"
        ) from error


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory: the run's on a GPU, the whole process's so far on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def device_name(device: torch.device) -> str:
    """The GPU's product name, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def processor_name() -> str:
    """CPU model and number of cores, such as ``Intel Xeon, 2 cores``."""
    return f"{cpu_info('model name') or platform.machine()}, {os.cpu_count()} cores"


def cpu_info(key: str) -> str:
    """An entry of ``/proc/cpuinfo`` for the first core, such as ``flags``; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    values = (line.partition(":")[2].strip() for line in lines if line.startswith(key))
    return next(values, "")

"""The device, precision and memory figures of one process."""

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
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BYTES = 1 << 30
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_accelerator(name: str) -> str:
    """``cpu``, ``cuda`` or ``mps``; ``auto`` takes the best one present."""
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
        local_rank = 0  # a cluster lets every process see one device, its own
    if local_rank >= count:
        raise ConfigError(
            f"trainer.devices={settings.devices} but this machine has {count} CUDA devices"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def choose_precision(name: str, device: torch.device) -> str:
    """``fp32``, ``bf16`` or ``fp16``; ``auto`` takes bf16 where the hardware computes in it."""
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
    """Let a layer compute in the precision of its weights, whatever autocast says.

    Not by hooks: ``torch.compile`` follows no context that one enters and another leaves.
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
    """A tensor, a packed sequence or a tuple of them in ``dtype``; None as it is."""
    if type(value) is tuple:
        return tuple(in_dtype(part, dtype) for part in value)
    return value if value is None else value.to(dtype)


def keep_recurrent_layers_out_of_autocast(model: nn.Module, device_type: str) -> None:
    """Under autocast cuDNN's LSTM, GRU and RNN take fp16, also in a bf16 run, which scales no loss.

    Elsewhere than on CUDA they take the precision that was asked for.
    """
    for layer in model.modules():
        if isinstance(layer, nn.RNNBase) and device_type == "cuda":
            keep_out_of_autocast(layer, device_type)


def eager(compiled: bool | str) -> AbstractContextManager:
    """Run a model as it is written, also if it was compiled."""
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def prepare_process(
    settings: TrainerSettings, seed: int, ranks: Ranks, device: torch.device
) -> None:
    """Random state, threads and math modes; all set by every run, so none leaks into the next."""
    keep_freed_memory()
    if settings.deterministic:  # what cuBLAS needs for it, before its first call
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    seed_process(device, seed, PROCESS_STREAM, ranks.rank)
    torch.set_num_threads(settings.num_threads or max(1, NUM_THREADS // ranks.local_world_size))
    if settings.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(settings.deterministic)  # imports the compiler: seconds
    torch.backends.cudnn.benchmark = not settings.deterministic
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it; no effect on the CPU
    if device.type == "cuda":
        gc.collect()  # an earlier job's cycles, whose memory there Python does not count
        torch.cuda.reset_peak_memory_stats(device)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next update, which needs as much again.

    By default it gives large blocks back to the kernel at once, and the page faults of getting them
    again took up to a third of an update. Other C libraries: no effect.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def synchronize(device: torch.device) -> None:
    """Wait for the device's queue, for timing."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def explain_oom(data: Loader) -> Iterator[None]:
    """Say in one line what to try.

    Raises:
        OutOfMemory: in place of the error of an allocation.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        # on the CPU torch has no class for it
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in text:
            raise
        asked = re.search(r"allocate ([\d.]+ [KMG]iB)", text)
        had = f", which had no {asked[1]} left" if asked else ""
        raise OutOfMemory(
            f"out of memory on {data.device}{had}, at data.batch_size={data.batch_size}, "
            f"trainer.accumulate_steps={data.accumulate_steps}, "
            f"data.eval_batch_size={data.eval_batch_size}: more accumulate_steps train the same "
            "with less, else make the batches smaller"
        ) from error


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory: of the run on the GPU, of the process so far on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def device_name(device: torch.device) -> str:
    """``cpu``, or the GPU's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def processor_name() -> str:
    """The machine's processor and its number of cores, such as ``Intel Xeon, 2 cores``."""
    return f"{cpu_info('model name') or platform.machine()}, {os.cpu_count()} cores"


def cpu_info(key: str) -> str:
    """What Linux says of the first core, such as its ``flags``; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    values = (line.partition(":")[2].strip() for line in lines if line.startswith(key))
    return next(values, "")

"""Caches tensors from a slow source in a file, checked against the source at every use."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor


def cached_tensors(
    cache: Path, fingerprint: str, make: Callable[[], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """The tensors of ``make()``, cached in a file for as long as ``fingerprint`` stays the same.

    The cache is written atomically; an outdated or damaged one is rebuilt. If it cannot be written
    (a read-only installation), the tensors are computed at every start.
    """
    try:
        content = torch.load(cache, weights_only=True, mmap=True)
        if content["fingerprint"] == fingerprint:
            return tuple(content["tensors"])
    except Exception:  # missing or damaged: rebuild it
        pass
    tensors = make()
    temporary = cache.with_name(f"{cache.name}.{os.getpid()}.tmp")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"fingerprint": fingerprint, "tensors": list(tensors)}, temporary)
        temporary.replace(cache)
    except (OSError, RuntimeError):  # torch raises RuntimeError for a file that it cannot write
        with suppress(OSError):
            temporary.unlink()
    return tensors

"""Tensor files made once from a slow source, checked against it at every use."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor


def fingerprinted(
    cache: Path, fingerprint: str, make: Callable[[], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """``make()``, kept in ``cache`` for as long as ``fingerprint`` stays the same.

    The cache is written atomically; an outdated or damaged one is made anew. Where it cannot be
    written (a read-only installation), the tensors are made at every start.
    """
    try:
        content = torch.load(cache, weights_only=True, mmap=True)
        if content["fingerprint"] == fingerprint:
            return tuple(content["tensors"])
    except Exception:  # not there yet, or whatever a damaged file raises: it is only a cache
        pass
    tensors = make()
    temporary = cache.with_name(f"{cache.name}.{os.getpid()}.tmp")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"fingerprint": fingerprint, "tensors": list(tensors)}, temporary)
        temporary.replace(cache)
    except (OSError, RuntimeError):  # torch's for a file that it cannot write
        with suppress(OSError):
            temporary.unlink()
    return tensors

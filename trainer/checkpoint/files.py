"""Checkpoint files: tensors and plain values only, written atomically."""

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.collectives import full_tensor, local_tensor
from core.errors import ConfigError, reason
from core.files import no_link
from trainer.checkpoint.optimizer_state import share_of
from trainer.distributed.device import synchronize

FORMAT_VERSION = 4
PARTS = {  # key -> type
    "model": dict,
    "ema": dict | None,
    "ema_updates": int,
    "optimizers": dict,
    "scaler": dict,
    "data": dict,
    "counters": dict,
    "metrics": dict,
    "num_events": int,
    "wandb": dict,
    "format_version": int,
}


def write(content: dict[str, Any], folder: Path, is_best: bool) -> None:
    """Write ``last.pt`` atomically; the earlier one becomes ``previous.pt``.

    Args:
        is_best: also make it ``best.pt``, as a hard link.

    Raises:
        ConfigError: if the disk is full or the folder not writable; ``last.pt`` is left unchanged.
    """
    last, temporary = folder / "last.pt", folder / ".last.pt.tmp"
    try:
        folder.mkdir(exist_ok=True)
        with open(temporary, "wb", opener=no_link) as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if last.exists():
            duplicate(last, folder / "previous.pt")
        temporary.replace(last)
        if is_best:
            duplicate(last, folder / "best.pt")
        flush_folder(folder)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        # torch's message for a failed write is about file offsets
        why = reason(error) if isinstance(error, OSError) else "the disk may be full"
        raise ConfigError(f"cannot write the checkpoint {last}: {why}") from error


def duplicate(path: Path, name: Path) -> None:
    """Hard-link a file to ``name`` atomically; copies it if the file system has no hard links."""
    temporary = name.with_name(f".{name.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        shutil.copyfile(path, temporary)
    temporary.replace(name)


def flush_folder(folder: Path) -> None:
    """Sync a folder to disk, which makes renames in it durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint without executing anything in it (``weights_only``).

    Raises:
        ConfigError: if the file is missing, damaged, or not a checkpoint of this program.
    """
    if not path.is_file():
        raise ConfigError(f"there is no checkpoint {path}")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not verify checksums
            if archive.testzip() is not None:
                raise ValueError("wrong checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file raises
        raise ConfigError(f"the checkpoint {path} is damaged: {reason(error)}") from error
    is_ours = isinstance(content, dict) and content.keys() == PARTS.keys()
    if not is_ours or not all(isinstance(content[name], kind) for name, kind in PARTS.items()):
        raise ConfigError(f"{path} is not a checkpoint of this program")
    if content["format_version"] != FORMAT_VERSION:
        raise ConfigError(
            f"{path} has format {content['format_version']}, this program reads {FORMAT_VERSION}"
        )
    return content


def to_host(state: Any, keep: bool = True) -> Any:
    """Return ``state``, which may be nested, with every tensor unsharded and in host memory.

    GPU tensors are copied asynchronously into pinned memory, with a single synchronization at the
    end. Tensors that share memory, such as tied weights, are copied once. Collective under FSDP:
    every process must call it.

    Args:
        keep: whether this process needs the tensors; otherwise each becomes None.
    """
    copies: dict[Any, Any] = {}
    devices: set[torch.device] = set()

    def copied(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: copied(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(copied, value))
        if not isinstance(value, Tensor):
            return value
        own = local_tensor(value)
        place = (own.untyped_storage(), own.storage_offset(), own.shape, own.stride(), own.dtype)
        if place not in copies:
            whole = full_tensor(value)
            copies[place] = whole.to("cpu", non_blocking=True) if keep else None
            devices.add(whole.device)
        return copies[place]

    on_host = copied(state)
    for device in devices if keep else ():
        synchronize(device)
    return on_host


def weights_to_save(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model on its device; under FSDP, this process's shards."""
    return {name: value.detach().contiguous() for name, value in model.state_dict().items()}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The unsharded state dict of a model, on the CPU. Collective under FSDP."""
    return {
        name: full_tensor(value.detach()).cpu().contiguous()
        for name, value in model.state_dict().items()
    }


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load a state dict from :func:`weights_of`, with or without FSDP."""
    own = model.state_dict()
    model.load_state_dict({name: share_of(value, own[name]) for name, value in weights.items()})


def measured_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint that were evaluated: the averaged ones if there are any.

    Raises:
        ConfigError: if the checkpoint cannot be read.
    """
    content = load(path)
    return content["model"] if content["ema"] is None else content["ema"]


def best_of(run_dir: Path) -> Path:
    """Path of a run's best checkpoint, or of its last one if there is no best.

    Raises:
        ConfigError: if it has neither.
    """
    for name in ("best.pt", "last.pt"):
        if (file := run_dir / "checkpoints" / name).is_file():
            return file
    raise ConfigError(
        f"{run_dir} has no checkpoint: the run ended too early, or had trainer.checkpoint=false"
    )


def load_best_weights(model: nn.Module, run_dir: Path) -> None:
    """Load a run's best weights into ``model``, or its last ones; averaged ones if there are any.

    Raises:
        ConfigError: if the run has no checkpoint, or it does not fit ``model``.
    """
    weights = measured_weights(best_of(run_dir))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(
            f"{run_dir}: the checkpoint does not fit the model in config.yaml"
        ) from error

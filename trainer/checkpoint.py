"""Checkpoint files: tensors and primitives only, written so that no interruption can spoil them."""

import os
import random
import shutil
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import ConfigError, reason

FORMAT_VERSION = 1
KINDS: dict[str, Any] = {
    "model": dict,
    "ema": dict | None,
    "optimizers": dict,
    "schedulers": dict,
    "scaler": dict,
    "rng": list,
    "data": dict,
    "counters": dict,
    "wandb": dict,
    "format_version": int,
}
COUNTERS = ("step", "evaluated_at", "events")


class Writer:
    """Writes checkpoints in a thread, one at a time: training waits for a copy, not for the disk.

    Args:
        folder: where ``last.pt``, the ``previous.pt`` before it, and ``best.pt`` go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[None] | None = None

    def write(self, content: dict[str, Any], is_best: bool) -> None:
        """Begin to write ``content`` as ``last.pt``, and as ``best.pt`` if it is the best so far.

        Raises:
            ConfigError: the checkpoint before this one could not be written.
        """
        self.wait()
        self.pending = self.thread.submit(self.work, on_cpu(content), is_best)

    def work(self, content: dict[str, Any], is_best: bool) -> None:
        last = self.folder / "last.pt"
        save(content, last, keep=self.folder / "previous.pt")
        if is_best:
            duplicate(last, self.folder / "best.pt")

    def wait(self) -> None:
        """Until everything is on disk, or an error says why it is not."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()


def on_cpu(value: Any) -> Any:
    """A copy that training cannot change while it is being written."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_cpu(item) for item in value)
    return value


def save(content: dict[str, Any], path: Path, keep: Path | None = None) -> None:
    """Write a checkpoint to a temporary file, flush it to disk, then rename it over ``path``.

    Args:
        keep: name that the checkpoint of before gets.

    Raises:
        ConfigError: the disk is full or the folder cannot be written; ``path`` is as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            duplicate(path, keep)
        temporary.replace(path)
        flush_folder(path.parent)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        # torch's own report of a failed write names positions in the file
        why = reason(error) if isinstance(error, OSError) else "the disk takes no more"
        raise ConfigError(f"cannot write the checkpoint {path}: {why}") from error


def duplicate(path: Path, name: Path) -> None:
    """Give a finished file a second name in one piece; a copy where the disk knows no links."""
    temporary = name.with_name(f".{name.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        shutil.copyfile(path, temporary)
    temporary.replace(name)


def flush_folder(folder: Path) -> None:
    """A rename is on disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in the file is executed.

    Raises:
        ConfigError: there is no such file, it is damaged, or it is no checkpoint of this program.
    """
    if not path.is_file():
        raise ConfigError(f"there is no checkpoint {path}")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the check sums
            if archive.testzip() is not None:
                raise ValueError("its check sums are wrong")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file raises
        raise ConfigError(f"the checkpoint {path} is damaged: {reason(error)}") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version != FORMAT_VERSION:
        raise ConfigError(f"{path} has format {version}, this program reads {FORMAT_VERSION}")
    if not isinstance(content, dict) or not is_complete(content):
        raise ConfigError(f"{path} is not a checkpoint of this program")
    return content


def load_best_weights(model: nn.Module, run_dir: Path) -> None:
    """Give ``model`` the best weights of a run, else its last; averaged ones where it kept them.

    Raises:
        ConfigError: the run has no checkpoint, or one of another model.
    """
    files = [run_dir / "checkpoints" / f"{name}.pt" for name in ("best", "last")]
    file = next(filter(Path.is_file, files), None)
    if file is None:
        raise ConfigError(f"{run_dir} has no checkpoint: the run ended too early, or kept none")
    content = load(file)
    try:
        model.load_state_dict(content["model"] if content["ema"] is None else content["ema"])
    except RuntimeError as error:
        raise ConfigError(
            f"{run_dir}: the checkpoint is not of the model in config.yaml"
        ) from error


def is_complete(content: dict[str, Any]) -> bool:
    """Whether the parts of a checkpoint are there, and of their kinds."""
    if not all(key in content and isinstance(content[key], kind) for key, kind in KINDS.items()):
        return False
    counts = [content["counters"].get(name) for name in COUNTERS]
    has_states = bool(content["rng"]) and all(isinstance(state, dict) for state in content["rng"])
    return has_states and all(isinstance(n, int) and n >= 0 for n in counts)


def random_state(device: torch.device) -> dict[str, Any]:
    """The random state of this process, as tensors and primitives."""
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "python": [version, list(internal), gauss],
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)

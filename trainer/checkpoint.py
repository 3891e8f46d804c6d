"""Checkpoint files: tensors and primitives only, written so that no interruption can spoil them."""

import io
import os
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.collectives import broadcast, full_tensor
from core.errors import ConfigError, reason
from trainer.optimizer_state import share_of

FORMAT_VERSION = 3
KINDS: dict[str, Any] = {
    "model": dict,
    "ema": dict | None,
    "optimizers": dict,
    "scaler": dict,
    "data": dict,
    "counters": dict,
    "wandb": dict,
    "format_version": int,
}
COUNTERS = ("step", "evaluated_at", "events")


@dataclass
class Start:
    """Where a run begins: at the beginning, or at a checkpoint.

    Attributes:
        content: of the checkpoint, if any.
        continues: whether the checkpoint is of this run directory, so that the same run goes on.
        changed: settings that differ from those the checkpoint was made with.
        notes: what a person should know, such as a damaged file that was passed over.
    """

    path: Path | None = None
    content: dict[str, Any] | None = None
    continues: bool = False
    changed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def num_events(self) -> int:
        """Lines of ``metrics.jsonl`` that were written when the checkpoint was."""
        return self.content["counters"]["events"] if self.content and self.continues else 0

    @property
    def wandb(self) -> dict[str, Any]:
        return self.content["wandb"] if self.content and self.continues else {}


class Writer:
    """Writes checkpoints in a thread, one at a time: training waits for a copy, not for the disk.

    Args:
        folder: where ``last.pt``, the ``previous.pt`` before it, and ``best.pt`` go.
        is_main: whether this is the process that writes; the others do nothing here.
    """

    def __init__(self, folder: Path, is_main: bool = True) -> None:
        self.folder, self.is_main = folder, is_main
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[None] | None = None
        self.is_first = True

    def write(self, content: dict[str, Any], is_best: bool) -> None:
        """Begin to write ``content`` as ``last.pt``, and as ``best.pt`` if it is the best so far.

        The first one is waited for and read back.

        Raises:
            ConfigError: the checkpoint before this one could not be written, or this run's cannot
                be read back.
        """
        if not self.is_main:
            return
        self.wait()
        self.pending = self.thread.submit(self.work, on_cpu(content), is_best)
        if self.is_first:
            self.wait()
            check_readable(self.folder / "last.pt", content)
            self.is_first = False

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

    def best_weights(self) -> dict[str, Tensor]:
        """Those of ``best.pt``, on every process.

        Raises:
            ConfigError: it cannot be read.
        """
        return broadcast(measured_weights(self.folder / "best.pt") if self.is_main else None)


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
        if not path.parent.is_dir():
            why = "its folder has been deleted"
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


def check_readable(path: Path, content: dict[str, Any]) -> None:
    """Whether the checkpoint just written as ``path`` can be loaded.

    Raises:
        ConfigError: it cannot, such as for an optimizer whose state is more than tensors and plain
            values.
    """
    try:
        load(path)
    except ConfigError as error:
        found = next(unreadable(content), None)
        if found is None:
            raise
        raise ConfigError(
            f"the run could not be resumed: its checkpoint holds {found}, and only tensors and "
            "plain values are read back; choose another optimizer, or trainer.checkpoint=false"
        ) from error


def unreadable(value: Any, where: str = "") -> Iterator[str]:
    """The parts of a checkpoint that ``torch.load`` refuses, each with its place and class."""
    if isinstance(value, dict):
        name = value.get("class", where)
        for key, item in value.items():
            yield from unreadable(item, f"{name} {key}".strip())
        return
    file = io.BytesIO()
    torch.save(value, file)
    try:
        torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    except Exception:  # as for a damaged file
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        yield f"{where}, a {kind}"


def measured_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint that evaluations measured: averaged where there was an average.

    Raises:
        ConfigError: it cannot be read.
    """
    content = load(path)
    return content["model"] if content["ema"] is None else content["ema"]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The flat state dict of a model, on the CPU, free of wrappers' prefixes.

    Under FSDP every process must take part.
    """
    return {
        name.replace("_orig_mod.", ""): full_tensor(value.detach()).cpu().contiguous()
        for name, value in model.state_dict().items()
    }


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load what :func:`weights` returned, under FSDP or not."""
    current = model.state_dict()
    model.load_state_dict(
        {
            name: share_of(value, current[name]) if name in current else value
            for name, value in weights.items()
        }
    )


def load_best_weights(model: nn.Module, run_dir: Path) -> None:
    """Give ``model`` the best weights of a run, else its last; averaged ones where it kept them.

    Raises:
        ConfigError: the run has no checkpoint, or one of another model.
    """
    files = [run_dir / "checkpoints" / f"{name}.pt" for name in ("best", "last")]
    file = next(filter(Path.is_file, files), None)
    if file is None:
        raise ConfigError(f"{run_dir} has no checkpoint: the run ended too early, or kept none")
    weights = measured_weights(file)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(
            f"{run_dir}: the checkpoint is not of the model in config.yaml"
        ) from error


def is_complete(content: dict[str, Any]) -> bool:
    """Whether the parts of a checkpoint are there, and of their kinds."""
    if not all(key in content and isinstance(content[key], kind) for key, kind in KINDS.items()):
        return False
    counts = [content["counters"].get(name) for name in COUNTERS]
    return all(isinstance(n, int) and n >= 0 for n in counts)

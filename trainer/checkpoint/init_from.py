"""``init_from``: begin with the weights of another run or of a file, as far as they fit."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from core.collectives import broadcast
from core.errors import ConfigError, reason
from core.ranks import Ranks
from trainer.checkpoint import files
from trainer.loggers.run_log import RunLog

WRAPPERS = ("module.", "model.", "_orig_mod.")  # what DDP, Lightning and compile put before names
NESTED = ("state_dict", "model", "model_state_dict", "net")  # where other programs keep weights
SHOWN = 3  # names in a line


def initialize(
    model: nn.Module, source: str | None, run_log: RunLog, ranks: Ranks
) -> dict[str, Any]:
    """Load what ``model`` has of ``source``, by name and shape, and say which tensors it has not.

    Only the first process reads; the others get its weights when the run is distributed.

    Args:
        source: a run directory, of which it is the best checkpoint; a checkpoint; or a state dict
            in a ``.pt``, ``.pth`` or ``.safetensors`` file, from which nothing is executed. None:
            the model stays as it is.

    Returns:
        What the summary records: the file, its hash, the tensors that were not loaded or not used.

    Raises:
        ConfigError: it cannot be read, or nothing in it fits.
    """
    if source is None:
        return {}
    record, problem = None, None
    if ranks.is_main:
        try:
            record = load_what_fits(model, source, run_log)
        except ConfigError as error:
            problem = error
    record, problem = broadcast((record, problem))
    if problem is not None:
        raise problem
    return {"init_from": record}


def load_what_fits(model: nn.Module, source: str, run_log: RunLog) -> dict[str, Any]:
    where = f"init_from={source}"
    file = file_of(source, where)
    theirs = read_tensors(file, where)
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    given = {name if name in own else unwrapped(name): value for name, value in theirs.items()}
    shared = [name for name in given if name in own]
    if not shared:
        raise ConfigError(
            f"{where} shares no name with the model: it has {listed(list(theirs))}, "
            f"{type(model).__name__} has {listed(list(own))}"
        )
    fitting = {name: given[name] for name in shared if given[name].shape == own[name].shape}
    others = {
        name: f"{name} {shape(own[name])}, there {shape(given[name])}"
        for name in shared
        if name not in fitting
    }
    if not fitting:
        raise ConfigError(
            f"{where}: no tensor has the model's shape: {next(iter(others.values()))}"
        )
    for name, value in fitting.items():
        if not value.isfinite().all():
            raise ConfigError(f"{where}: {name} is not finite: its training diverged")
    model.load_state_dict(fitting, strict=False)
    loaded = {own[name].data_ptr() for name in fitting}  # also of what goes by two names
    new = {name: others.get(name, name) for name in own if own[name].data_ptr() not in loaded}
    unused = [name for name in given if name not in own]
    num_loaded = len(own) - len(new)
    line = f"init_from: {num_loaded} of {len(own)} tensors from {file}"
    if new:
        line += f"; new: {listed(list(new.values()))}"
    if unused:
        line += f"; not used: {listed(unused)}"
    run_log.print(line)
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    return {
        "file": str(file.resolve()),
        "sha256": sha256,
        "num_loaded": num_loaded,
        "new": list(new),
        "unused": unused,
    }


def file_of(source: str, where: str) -> Path:
    path = Path(source).expanduser()
    if not path.exists():
        raise ConfigError(f"{where}: there is no such file or run directory")
    if not path.is_dir():
        return path
    try:
        return files.best_of(path)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}; or name a file") from error


def read_tensors(file: Path, where: str) -> dict[str, Tensor]:
    """The weights in a file, on the CPU; averaged ones where a checkpoint has an average.

    Raises:
        ConfigError: it is damaged, or holds no named tensors.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ConfigError(
            f"{where}: {file} is damaged, or holds more than tensors, such as a whole model, which "
            "could run any code: save model.state_dict() instead"
        ) from error
    except Exception as error:  # whatever a damaged file raises
        raise ConfigError(f"{where}: {file} is damaged: {reason(error)}") from error
    if isinstance(content, Mapping) and content.keys() == files.PARTS.keys():
        content = content["ema"] or content["model"]
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content.get(name) for name in NESTED]
    for candidate in candidates:
        if isinstance(candidate, Mapping):
            found = {str(key): v for key, v in candidate.items() if isinstance(v, Tensor)}
            if found:
                return found
    raise ConfigError(f"{where}: {file} holds no state dict, which is tensors by name")


def unwrapped(name: str) -> str:
    """A name without what wrappers put before it."""
    while wrapper := next((prefix for prefix in WRAPPERS if name.startswith(prefix)), None):
        name = name.removeprefix(wrapper)
    return name


def shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

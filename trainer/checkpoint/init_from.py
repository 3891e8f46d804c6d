"""``init_from``: initialize a model with the matching weights of another run or of a file."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from core.collectives import broadcast
from core.errors import ConfigError, reason
from core.ranks import Ranks
from core.records import read_record
from trainer.checkpoint import files
from trainer.loggers.run_log import RunLog

WRAPPERS = ("module.", "model.", "_orig_mod.")  # prefixes added by DDP, Lightning, compile
NESTED = ("state_dict", "model", "model_state_dict", "net")  # keys other programs use for weights
SHOWN = 3  # names per message


def initialize(
    model: nn.Module, source: str | None, run_log: RunLog, ranks: Ranks, spec: Any = None
) -> dict[str, Any]:
    """Load the tensors of ``source`` that match ``model`` by name and shape; report the others.

    Only rank 0 reads the file; its weights are broadcast when the objective is distributed.

    Args:
        source: a run directory, whose best checkpoint is used; a checkpoint; or a state dict in a
            ``.pt``, ``.pth`` or ``.safetensors`` file, from which nothing is executed. None leaves
            the model unchanged.
        spec: the run's data specification. The output layer is not loaded if the classes differ,
            nor are the embedding and the output layer if the tokenizers differ.

    Returns:
        Entries for the summary: the file, its hash, the tensors that were not loaded or not used.

    Raises:
        ConfigError: if the source cannot be read, or none of its tensors fits.
    """
    if source is None:
        return {}
    record, problem = None, None
    if ranks.is_main:
        try:
            record = load_what_fits(model, Path(source).expanduser(), run_log, spec)
        except ConfigError as error:
            problem = ConfigError(f"init_from={source}: {error}")
    record, problem = broadcast((record, problem))
    if problem is not None:
        raise problem
    return {"init_from": record}


def load_what_fits(model: nn.Module, path: Path, run_log: RunLog, spec: Any) -> dict[str, Any]:
    if not path.exists():
        raise ConfigError("there is no such file or run directory")
    file = files.best_of(path) if path.is_dir() else path
    theirs = read_tensors(file)
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    given = {name if name in own else unwrapped(name): value for name, value in theirs.items()}
    fitting: dict[str, Tensor] = {}
    mismatches: dict[str, str] = {}
    shared = [name for name in given if name in own]
    incompatible = incompatible_tensors(model, file, spec)
    for name in shared:
        file_shape, model_shape = tuple(given[name].shape), tuple(own[name].shape)
        if file_shape != model_shape:
            mismatches[name] = f"{name} {model_shape}, in the file {file_shape}"
        elif name in incompatible:
            mismatches[name] = f"{name} ({incompatible[name]})"
        else:
            fitting[name] = given[name]
    if not shared:
        raise ConfigError(
            f"no tensor name matches: the file has {listed(theirs)}, "
            f"{type(model).__name__} has {listed(own)}"
        )
    if not fitting:
        raise ConfigError(f"no tensor has the model's shape: {listed(mismatches.values())}")
    for name, value in fitting.items():
        if not value.isfinite().all():
            raise ConfigError(f"{name} is not finite: its training diverged")
    model.load_state_dict(fitting, strict=False)
    loaded = {own[name].data_ptr() for name in fitting}  # also covers tied weights
    new = {name: mismatches.get(name, name) for name in own if own[name].data_ptr() not in loaded}
    unused = [name for name in given if name not in own]
    num_loaded = len(own) - len(new)
    line = f"init_from: {num_loaded} of {len(own)} tensors from {file}"
    line += f"; newly initialized: {listed(new.values())}" if new else ""
    line += f"; not used: {listed(unused)}" if unused else ""
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


def incompatible_tensors(model: nn.Module, file: Path, spec: Any) -> dict[str, str]:
    """Tensors that differ in meaning from those of the run that wrote ``file``, and the reason."""
    try:
        theirs = read_record(file.resolve().parent.with_name("spec.json"))
        names, tokens = theirs.get("class_names"), theirs.get("tokenizer_content")
    except (OSError, ValueError, AttributeError):  # not in a run directory
        return {}
    own = list(getattr(spec, "class_names", ()))
    if own and names and names != own:
        return dict.fromkeys(output_layer(model, len(own)), "other classes")
    if hasattr(spec, "vocab_size") and tokens is not None and tokens != spec.tokenizer_content:
        found = [*embedding(model, spec.vocab_size), *output_layer(model, spec.vocab_size)]
        return dict.fromkeys(found, "another tokenizer")
    return {}


def output_layer(model: nn.Module, num_outputs: int) -> list[str]:
    """Parameter names of the last layer with ``num_outputs`` rows."""
    names: list[str] = []
    for prefix, layer in model.named_modules():
        own = dict(layer.named_parameters(prefix, recurse=False))
        if own and all(value.shape[:1] == (num_outputs,) for value in own.values()):
            names = list(own)
    return names


def embedding(model: nn.Module, vocab_size: int) -> list[str]:
    """Parameter name of the first embedding with ``vocab_size`` rows, if there is one."""
    names = [
        f"{prefix}.weight"
        for prefix, layer in model.named_modules()
        if isinstance(layer, nn.Embedding) and layer.num_embeddings == vocab_size
    ]
    return names[:1]


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read the weights in a file, on the CPU; the averaged ones if a checkpoint has them.

    Raises:
        ConfigError: if the file is damaged, or has no named tensors.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ConfigError(
            f"{file} is damaged, or has more than tensors, such as a pickled model, which could "
            "run arbitrary code: save model.state_dict() instead"
        ) from error
    except Exception as error:  # whatever a damaged file raises
        raise ConfigError(
            f"{file} is damaged, or was not written by torch.save or safetensors: {reason(error)}"
        ) from error
    if isinstance(content, Mapping) and content.keys() == files.PARTS.keys():
        files.load(file)  # verifies checksums, which torch.load does not
        content = content["ema"] or content["model"]
    nodes = [content]
    if isinstance(content, Mapping):
        nodes += [content.get(name) for name in NESTED]
    for node in nodes:
        tensors = node.items() if isinstance(node, Mapping) else ()
        if found := {str(name): value for name, value in tensors if isinstance(value, Tensor)}:
            return found
    raise ConfigError(f"{file} has no state dict, that is, tensors by name")


def unwrapped(name: str) -> str:
    """Strip the prefixes that wrappers add to a name."""
    while wrapper := next((prefix for prefix in WRAPPERS if name.startswith(prefix)), None):
        name = name.removeprefix(wrapper)
    return name


def listed(names: Iterable[str]) -> str:
    names = [*names]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

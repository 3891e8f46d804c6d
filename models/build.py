"""Builds the model that a config describes, sized for its data."""

import hashlib
import re
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import ConfigError
from core.instantiate import instantiate

FROM_DATA = (
    "in_channels", "image_size", "num_classes", "vocab_size", "context_length", "max_length",
    "in_features", "num_outputs",
)  # fmt: skip
SIZES = (*FROM_DATA, "height", "width")  # names allowed in ${from_data:NAME}
NUM_FIRST = 5000
AVX512_FLOATS = 16
PLACEHOLDER = re.compile(r"\$\{from_data:\s*(\w+)\s*\}")


def build_model(
    settings: dict[str, Any],
    spec: Any,
    device: torch.device,
    channels_last: bool = False,
) -> nn.Module:
    """Build the model on ``device``.

    Settings that are null are filled from the attribute of the same name of the data's ``spec``
    (``in_channels``, ``num_classes``, ...), so one model config serves every data set.

    Args:
        channels_last: use this memory format for four-dimensional weights, except on CPUs where
            it would give wrong gradients.

    Raises:
        ConfigError: if a setting is wrong, the data do not fit, or the model cannot be trained.
    """
    model = instantiate(fill_from_data(settings, spec), "model")
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model._target_={settings['_target_']} does not build a torch module")
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.sparse:
            raise ConfigError(
                f"model: the layer {name} makes sparse gradients, which cannot be clipped or "
                "averaged over processes: build it with sparse=False"
            )
    model = model.to(device)
    if channels_last and not (device.type == "cpu" and onednn_overflows(model)):
        model = model.to(memory_format=torch.channels_last)
    return model


def onednn_overflows(model: nn.Module) -> bool:
    """Whether the model has a strided 1 x 1 convolution with fewer channels than SIMD lanes.

    In ``channels_last``, oneDNN's kernels for its weight gradient then write past their workspace:
    a crash, or wrong gradients (github.com/uxlfoundation/oneDNN/issues/6035). AVX2 has 8 lanes,
    AVX-512 has 16; the limit is the same everywhere, so that a run does not depend on the CPU.
    """
    return any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.in_channels < AVX512_FLOATS
        for layer in model.modules()
    )


def fill_from_data(settings: dict[str, Any], spec: Any) -> dict[str, Any]:
    """Fill ``settings`` from the data's ``spec``.

    A null takes the attribute of the same name; ``${from_data:NAME}``, at any depth, takes NAME.

    Raises:
        ConfigError: if the data are of a kind the model is not for, or a size is not positive.
    """
    filled = {
        key: getattr(spec, key, None)
        if value is None
        else with_data_properties(value, spec, f"model.{key}")
        for key, value in settings.items()
    }
    for key, value in filled.items():
        if key not in FROM_DATA:
            continue
        if value is None:
            usual = getattr(spec, "usual_model", None)
            raise ConfigError(
                f"model._target_={settings['_target_']} and data={spec.name} do not fit: these "
                f"data have no {key}" + (f"; try model={usual}" if usual else "")
            )
        sizes = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(size, int) and size < 1 for size in sizes):
            raise ConfigError(f"model.{key}={value} should be above 0")
    return filled


def with_data_properties(value: Any, spec: Any, where: str) -> Any:
    """``value`` with every ``${from_data:NAME}`` in it replaced by that property of the data.

    Raises:
        ConfigError: if the data have no such property, or it is a part of a longer string.
    """
    if isinstance(value, dict):
        return {
            key: with_data_properties(item, spec, f"{where}.{key}") for key, item in value.items()
        }
    if isinstance(value, list):
        return [with_data_properties(item, spec, f"{where}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, str) or "${from_data:" not in value:
        return value
    match = PLACEHOLDER.fullmatch(value)
    if match is None:
        raise ConfigError(f"{where}={value}: ${{from_data:NAME}} should stand alone")
    sizes = {name: getattr(spec, name) for name in SIZES if hasattr(spec, name)}
    if match[1] not in sizes:
        raise ConfigError(
            f"{where}={value}: data={spec.name} has no {match[1]}; it has {', '.join(sizes)}"
        )
    return sizes[match[1]]


def initialize_from_data(model: nn.Module, data: Any) -> None:
    """Call the model's ``initialize_from``, if it has one, with training inputs.

    It gets the first :data:`NUM_FIRST` inputs of the training split, not augmented.

    Args:
        data: the run's ``Loader``.
    """
    initialize = getattr(model, "initialize_from", None)
    if initialize is not None:
        count = min(NUM_FIRST, len(data.splits["train"]))
        inputs, *_ = next(iter(data.prepared("train", [torch.arange(count)])))
        with torch.no_grad():
            initialize(inputs)


def num_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def num_frozen_parameters(model: nn.Module) -> int:
    """Number of frozen parameters."""
    return sum(p.numel() for p in model.parameters() if not p.requires_grad)


def weights_hash(weights: dict[str, Tensor]) -> str:
    """Hash of a flat state dict; equal hashes prove equal initial weights."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        raw = value.contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()[:32]

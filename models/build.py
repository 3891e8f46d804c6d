"""The model a config describes, shaped for its data."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import ConfigError
from core.instantiate import instantiate

FROM_DATA = (
    "in_channels", "image_size", "num_classes", "vocab_size", "context_length", "max_length",
    "in_features", "num_outputs",
)  # fmt: skip


def build_model(
    settings: dict[str, Any],
    spec: Any,
    device: torch.device,
    channels_last: bool = False,
    compile: bool = False,
) -> nn.Module:
    """The model on its device.

    Settings that are null are filled from the attribute of the same name of the data's ``spec``
    (``in_channels``, ``num_classes``, ...), so one model file serves every data set.

    Args:
        channels_last: memory format of four-dimensional weights; others stay as they are.
        compile: let ``torch.compile`` translate it when it is first called.

    Raises:
        ConfigError: a setting is wrong, the data do not suit it, or it is no model to train here.
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
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    if compile:
        model.compile()
    return model


def fill_from_data(settings: dict[str, Any], spec: Any) -> dict[str, Any]:
    """``settings`` with every null taken from the data, where the data have such a property.

    Raises:
        ConfigError: the data are of another kind than the model is for, or a size is not positive.
    """
    filled = {
        key: getattr(spec, key, None) if value is None else value for key, value in settings.items()
    }
    for key, value in filled.items():
        if key not in FROM_DATA:
            continue
        if value is None:
            raise ConfigError(
                f"model._target_={settings['_target_']} and data={spec.name} do not fit: these "
                f"data have no {key}"
            )
        sizes = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(size, int) and size < 1 for size in sizes):
            raise ConfigError(f"model.{key}={value} should be above 0")
    return filled


def num_parameters(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def weights_hash(weights: dict[str, Tensor]) -> str:
    """Hash of a flat state dict: equal hashes prove an equal start."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        raw = value.contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()[:32]

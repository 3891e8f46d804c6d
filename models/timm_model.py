"""Any classifier of timm or torchvision as a ``model=`` option.

``model=timm model.name=resnet18`` is timm's, ``model=timm model.name=torchvision/resnet18`` is
torchvision's. ``model.pretrained=true`` starts from published weights with a new classifier.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pickle import UnpicklingError
from typing import Any

from torch import nn

from core.errors import ConfigError, reason


def timm_model(
    name: str, in_channels: int, num_classes: int, pretrained: bool = False, **settings: Any
) -> nn.Module:
    """Create the model ``name``; further settings go to its constructor.

    Raises:
        ConfigError: if there is no model of that name, or its weights cannot be loaded.
    """
    library, _, own_name = name.rpartition("/")
    try:
        if library == "torchvision":
            return torchvision_model(own_name, in_channels, num_classes, pretrained, **settings)
        import timm  # takes seconds to import: only when used

        if not timm.is_model(name):
            raise unknown(name, "timm", timm.list_models())
        return timm.create_model(
            name, pretrained=pretrained, in_chans=in_channels, num_classes=num_classes, **settings
        )
    except (OSError, RuntimeError, UnpicklingError) as error:
        if file := settings.get("checkpoint_path"):
            raise ConfigError(
                f"model.checkpoint_path={file} cannot be loaded: {reason(error)}"
            ) from error
        if not pretrained:
            raise
        raise ConfigError(f"model.pretrained: no weights for {name}: {reason(error)}") from error


def torchvision_model(
    name: str, in_channels: int, num_classes: int, pretrained: bool, **settings: Any
) -> nn.Module:
    """torchvision's model ``name`` with a new classifier, fitted to the data's channels."""
    from torchvision import models  # takes a second to import: only when used

    names = models.list_models(module=models)
    if name not in names:
        raise unknown(f"torchvision/{name}", "torchvision", [f"torchvision/{n}" for n in names])
    if name in ("googlenet", "inception_v3"):
        settings = {"aux_logits": False, **settings}  # else training returns tuples
    model = models.get_model(name, weights="DEFAULT" if pretrained else None, **settings)
    replace_stem(model, in_channels)
    replace_classifier(model, num_classes)
    return model


def unknown(name: str, library: str, known: Sequence[str]) -> ConfigError:
    nearest = get_close_matches(name, known, n=3)
    hint = f"; closest: {', '.join(nearest)}" if nearest else ""
    return ConfigError(f"model.name={name}: {library} has no classifier of this name{hint}")


def replace_stem(model: nn.Module, in_channels: int) -> None:
    """Adapt the first convolution to ``in_channels``; grey images give the output of RGB ones."""
    conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    if conv.in_channels != in_channels:
        mean = conv.weight.detach().mean(1, keepdim=True) * (conv.in_channels / in_channels)
        conv.weight = nn.Parameter(mean.repeat(1, in_channels, 1, 1))
        conv.in_channels = in_channels


def replace_classifier(model: nn.Module, num_classes: int) -> None:
    """Replace the last layer by a new one of ``num_classes`` outputs."""
    linear = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    if linear:
        name, last = linear[-1]
        model.set_submodule(name, nn.Linear(last.in_features, num_classes))
    else:  # SqueezeNet classifies by a 1x1 convolution
        name, conv = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)][-1]
        model.set_submodule(name, nn.Conv2d(conv.in_channels, num_classes, 1))

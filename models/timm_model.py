"""Any classifier of timm or torchvision as a ``model=`` option.

``model=timm model.name=resnet18`` is timm's, ``model=timm model.name=torchvision/resnet18`` is
torchvision's. ``model.pretrained=true`` begins with published weights and a new classifier.
"""

from difflib import get_close_matches
from typing import Any

from torch import nn

from core.errors import ConfigError
from models.torchvision_model import torchvision_model


def timm_model(
    name: str, in_channels: int, num_classes: int, pretrained: bool = False, **settings: Any
) -> nn.Module:
    """Create the model ``name``; further settings go to its constructor.

    Raises:
        ConfigError: there is no model of that name, or its weights cannot be loaded.
    """
    if name.startswith("torchvision/"):
        name = name.removeprefix("torchvision/")
        return torchvision_model(name, in_channels, num_classes, pretrained, **settings)
    import timm  # costs seconds: only for the runs that use it

    if not timm.is_model(name):
        nearest = get_close_matches(name, timm.list_models(), n=3)
        hint = f"; near it: {', '.join(nearest)}" if nearest else ""
        raise ConfigError(f"model.name={name}: timm has no model of this name{hint}")
    try:
        return timm.create_model(
            name, pretrained=pretrained, in_chans=in_channels, num_classes=num_classes, **settings
        )
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model.pretrained: no weights for {name}: {reason}") from error

"""Any of timm's classifiers as a ``model=`` option: ``model=timm model.name=resnet18``."""

from difflib import get_close_matches
from typing import Any

from torch import nn

from trainer.errors import ConfigError


def timm_model(
    name: str, in_channels: int, num_classes: int, pretrained: bool = False, **settings: Any
) -> nn.Module:
    """Create timm's model ``name``; further settings go to its constructor.

    Raises:
        ConfigError: timm has no model of that name.
    """
    import timm  # costs seconds: only for the runs that use it

    if not timm.is_model(name):
        nearest = get_close_matches(name, timm.list_models(), n=3)
        hint = f"; near it: {', '.join(nearest)}" if nearest else ""
        raise ConfigError(f"model.name={name}: timm has no model of this name{hint}")
    return timm.create_model(
        name, pretrained=pretrained, in_chans=in_channels, num_classes=num_classes, **settings
    )

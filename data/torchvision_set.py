"""Data sets that torchvision downloads, checks and reads."""

import torch

from core.errors import ConfigError, reason
from data.splits import TensorSplit


def training_and_test(name: str, root: str) -> tuple[TensorSplit, TensorSplit]:
    """Both parts of ``torchvision.datasets.<name>``, downloaded to ``root`` where they are not yet.

    A part has uint8 images ``(N, C, H, W)`` and int64 labels ``(N,)``.

    Raises:
        ConfigError: there are no such files and no network, or a file is damaged.
    """
    return part(name, root, train=True), part(name, root, train=False)


def part(name: str, root: str, train: bool) -> TensorSplit:
    from torchvision import datasets  # costs a second: only for the runs that use it

    try:
        content = getattr(datasets, name)(root, train=train, download=True)
    except Exception as error:  # no network, no permission, whatever a damaged file raises
        raise ConfigError(
            f"data.root={root}: {name} can neither be read nor downloaded: {reason(error)}; a "
            "damaged file is downloaded again once it is deleted"
        ) from error
    images = torch.as_tensor(content.data)
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return TensorSplit(images, torch.as_tensor(content.targets))

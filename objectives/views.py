"""Test-time augmentation: predictions averaged over views of an image (arXiv:2404.00498)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.outputs import prediction_of


def mean_over_views(model: Any, inputs: list[Tensor], count: int) -> Tensor:
    """Predictions of ``model`` in fp32, averaged over ``count`` views of the images ``inputs[0]``.

    A shifted view has half the weight of an unshifted one.

    Args:
        count: 1: the image; 2: also its mirror image; 6: also both of them shifted by a pixel
            down-right and up-left.
    """
    if count == 1:
        return prediction_of(model(*inputs)).float()
    images, *rest = inputs

    def mirrored(x: Tensor) -> Tensor:
        pair = [prediction_of(model(view, *rest)).float() for view in (x, x.flip(3))]
        return torch.stack(pair).mean(0)

    if count == 2:
        return mirrored(images)
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    shifted = [mirrored(padded[:, :, :-2, :-2]), mirrored(padded[:, :, 2:, 2:])]
    return (mirrored(images) + torch.stack(shifted).mean(0)) / 2

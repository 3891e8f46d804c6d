"""Several views of an image at test time, whose predictions are averaged (arXiv:2404.00498)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.outputs import prediction_of

COUNTS = (1, 2, 6)  # the image; its mirror image; both shifted by a pixel, down or up


def mean_over_views(model: Any, inputs: list[Tensor], count: int) -> Tensor:
    """What ``model`` predicts for ``inputs``, of which the first are images if ``count > 1``.

    Shifted views count half as much as the others.

    Args:
        count: one of :data:`COUNTS`.
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

"""Gaussian diffusion: the noising process, and DDIM sampling.

``alpha_bar[t]`` is the share of the image's variance left after ``t`` of ``num_steps`` steps:
``x_t = sqrt(alpha_bar[t]) * x_0 + sqrt(1 - alpha_bar[t]) * noise`` (arXiv:2006.11239).
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

OFFSET = 0.008  # keeps the first steps from being too small (arXiv:2102.09672, section 3.2)
MAX_BETA = 0.999
Prediction = Literal["velocity", "noise"]


class CosineDiffusion(nn.Module):
    """Cosine noise schedule of ``num_steps`` steps, a buffer saved with the model's weights.

    Args:
        prediction: what the network predicts from ``x_t``: ``noise``, or ``velocity``,
            ``sqrt(alpha_bar) * noise - sqrt(1 - alpha_bar) * image`` (arXiv:2202.00512). Near the
            last step, a noise error grows a thousandfold in the image; a velocity error does not.
    """

    alpha_bar: Tensor  # (num_steps + 1,), from 1 at t = 0 down to nearly 0

    def __init__(self, num_steps: int, prediction: Prediction) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.prediction = prediction
        self.register_buffer("alpha_bar", cosine_alpha_bar(num_steps).float())

    def add_noise(self, images: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``images`` after ``t`` steps of noise, with one ``t`` in 1..num_steps per image."""
        alpha_bar = self.alpha_bar[t].view(-1, 1, 1, 1)
        return alpha_bar.sqrt() * images + (1 - alpha_bar).sqrt() * noise

    def target(self, images: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The training target of the network for ``add_noise(images, noise, t)``."""
        if self.prediction == "noise":
            return noise
        return self.add_noise(noise, -images, t)

    def denoised(self, x: Tensor, predicted: Tensor, t: int) -> Tensor:
        """Estimate the clean images from ``x`` at step ``t`` and the network's prediction."""
        signal, noise = self.alpha_bar[t].sqrt(), (1 - self.alpha_bar[t]).sqrt()
        if self.prediction == "noise":
            return (x - noise * predicted) / signal
        return signal * x - noise * predicted

    def ddim(
        self, predict: Callable[[Tensor, Tensor], Tensor], x: Tensor, sample_steps: int
    ) -> Tensor:
        """Turn noise ``x`` into images by deterministic DDIM (eta = 0, arXiv:2010.02502).

        Args:
            predict: the network, ``(x_t, t)`` -> a prediction in the shape of ``x_t``; ``t`` is
                ``(N,)``.
            sample_steps: number of network evaluations, evenly spaced; at most ``num_steps``.
        """
        times = torch.linspace(self.num_steps, 0, sample_steps + 1).round().long().tolist()
        for now, then in pairwise(times):
            predicted = predict(x, torch.full((len(x),), now, device=x.device)).float()
            image = self.denoised(x, predicted, now).clamp(-1, 1)  # the range of images
            alpha_bar, target = self.alpha_bar[now], self.alpha_bar[then]
            noise = (x - alpha_bar.sqrt() * image) / (1 - alpha_bar).sqrt()
            x = target.sqrt() * image + (1 - target).sqrt() * noise
        return x


def cosine_alpha_bar(num_steps: int) -> Tensor:
    """``alpha_bar`` for t = 0..num_steps in float64 (arXiv:2102.09672, equation 17).

    No single step removes more than ``MAX_BETA`` of the variance, so the last value is not zero.
    """
    t = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    curve = ((t + OFFSET) / (1 + OFFSET) * math.pi / 2).cos() ** 2
    betas = (1 - curve[1:] / curve[:-1]).clamp(max=MAX_BETA)
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])

"""Denoising diffusion: learn to tell noise from image (DDPM, arXiv:2006.11239)."""

from typing import Any

import torch
from torch import Tensor, nn

from core.errors import ConfigError
from data.draws import seeded
from data.splits import Batch
from models.diffusion import CosineDiffusion
from objectives.base import Sums, mean_over_batch
from objectives.generation import EVAL_SEED, Generation


class Denoising(Generation):
    """Mean squared error of what the model predicts of noisy images, every time alike.

    Training draws times and noise from torch's global generator, whose state the checkpoint keeps.
    An evaluation draws the same ones every time, so that the loss compares between evaluations.

    Args:
        fid_extractor, fid_cache: see :class:`Generation`.

    Raises:
        ConfigError: the model has no ``diffusion``.
    """

    def __init__(
        self, model: nn.Module, spec: Any, fid_extractor: str | None, fid_cache: str
    ) -> None:
        super().__init__(model, spec, fid_extractor, fid_cache)
        if not isinstance(getattr(model, "diffusion", None), CosineDiffusion):
            raise ConfigError(
                f"model and objective=denoising do not fit: {type(model).__name__} has no "
                "diffusion; model=unet does"
            )

    def forward(self, phase: str, batch: Batch) -> tuple[Tensor, Sums]:
        losses = self.losses(self.model, batch[0])
        return losses.mean(), {"loss": mean_over_batch(losses)}

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
        _, samples = super().evaluate(model, batch)
        losses = self.losses(model, batch[0], seeded(EVAL_SEED))
        return {"loss": mean_over_batch(losses)}, samples

    def losses(
        self, model: Any, images: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The error of each image, at one random time each.

        Args:
            generator: of the CPU; None draws from the global generator of the images' device.
        """
        images = self.in_range(images)
        device = images.device if generator is None else torch.device("cpu")
        last = model.diffusion.num_steps
        t = torch.randint(1, last + 1, (len(images),), generator=generator, device=device)
        noise = torch.randn(images.shape, generator=generator, device=device)
        t, noise = t.to(images.device), noise.to(images.device)
        diffusion = model.diffusion
        predicted = model(diffusion.add_noise(images, noise, t), t)
        target = diffusion.target(images, noise, t)
        return (predicted.float() - target).square().mean((1, 2, 3))

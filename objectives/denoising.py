"""Denoising diffusion: train a model to remove noise from images (DDPM, arXiv:2006.11239)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import ConfigError
from data.draws import EVALUATION_STREAM, seeded
from data.splits import Batch
from models.diffusion import CosineDiffusion
from objectives.base import Sums, check_fit, mean_over_batch
from objectives.generation import EVAL_SEED, Generation

MISMATCH = "model and objective=denoising do not fit"


class Denoising(Generation):
    """Mean squared error of the model's prediction for noisy images, unweighted over timesteps.

    Training draws timesteps and noise from torch's global generator, which the trainer reseeds at
    every update. Evaluation seeds them per sample, independent of batches and processes.
    """

    def check_model(self) -> None:
        """Raise ConfigError unless the model has a ``diffusion`` and fits the data."""
        if not isinstance(getattr(self.model, "diffusion", None), CosineDiffusion):
            raise ConfigError(
                f"{MISMATCH}: {type(self.model).__name__} has no diffusion; use model=unet"
            )
        images = self.spec.example(2)
        inputs = [images, torch.ones(2, dtype=torch.long)]  # and timesteps
        check_fit(self.model, inputs, tuple(images.shape), MISMATCH, alone=True)

    def forward(self, phase: str, batch: Batch) -> tuple[Tensor, Sums]:
        losses = self.losses(self.model, batch[0])
        return losses.mean(), {"loss": mean_over_batch(losses)}

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
        _, samples = super().evaluate(model, batch)
        indices = self.evaluated_indices(batch)
        generators = [seeded(EVAL_SEED, EVALUATION_STREAM, index) for index in indices]
        losses = self.losses(model, batch[0], generators)
        return {"loss": mean_over_batch(losses)}, samples

    def losses(
        self, model: Any, images: Tensor, generators: Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """The mean squared error ``(N,)`` of each image at a random timestep.

        Args:
            generators: one CPU generator per image; None: the global generator of the images'
                device.
        """
        images = self.in_range(images)
        device, end = images.device, model.diffusion.num_steps + 1
        if generators is None:
            t = torch.randint(1, end, (len(images),), device=device)
            noise = torch.randn(images.shape, device=device)
        else:
            t = torch.cat([torch.randint(1, end, (1,), generator=g) for g in generators])
            t = t.to(device, non_blocking=True)
            each = [torch.randn(images.shape[1:], generator=g) for g in generators]
            noise = torch.stack(each).to(device, non_blocking=True)
        diffusion = model.diffusion
        predicted = model(diffusion.add_noise(images, noise, t), t)
        target = diffusion.target(images, noise, t)
        return (predicted.float() - target).square().mean((1, 2, 3))

"""Variational autoencoder objective (VAE, arXiv:1312.6114)."""

import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from core.schema import NonNegative, Positive
from data.draws import EVALUATION_STREAM, LATENT_STREAM, BatchDraws, seeded
from data.pictures import save_grid
from data.splits import Batch
from metrics.named import NamedMetrics
from models.vae import VAE
from objectives.base import (
    Media,
    Objective,
    Picture,
    Sums,
    check_fit,
    mean_over_batch,
    pixel_statistics,
    spread,
)
from objectives.generation import EVAL_SEED, GRID

NUM_SHOWN = 32  # logged images with their reconstructions


class VariationalAutoencoder(Objective):
    """Loss ``reconstruction + beta * kl`` in nats per image; ``elbo`` is its negative at beta 1.

    The noise of the latent codes is seeded by position in training and by sample in evaluation,
    independent of the number of processes and batches.

    Args:
        beta: weight of the KL divergence from the prior (beta-VAE, arXiv:1804.03599).
        likelihood: of the pixels in [0, 1]: ``bernoulli``, for nearly black-and-white images, or
            ``gaussian``.
        noise_std: standard deviation of the Gaussian likelihood.
        metrics: names of additional evaluation metrics on the reconstructed pixels in [0, 1], see
            :mod:`metrics.named`.

    Raises:
        ConfigError: if the model is not a VAE, or the data are not images.
    """

    keeps_samples = shows_samples = True
    metric_modes: ClassVar = {"loss": "min", "reconstruction": "min", "elbo": "max"}
    outputs = "reconstructions"
    task = "images"

    def __init__(
        self,
        model: nn.Module,
        spec: Any,
        beta: NonNegative = 1.0,
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
        noise_std: Positive = 0.1,
        metrics: Any = (),
    ) -> None:
        super().__init__(model)
        if not isinstance(model, VAE):
            raise ConfigError(
                f"model and objective=vae do not fit: {type(model).__name__} is not a VAE; use "
                "model=vae"
            )
        if spec.kind != "image":
            raise ConfigError(f"objective=vae needs images, data={spec.name} has none")
        self.spec, self.beta, self.likelihood = spec, beta, likelihood
        self.noise_std = noise_std
        self.latent_dim = model.noise_shape[0]
        images = spec.example(2)
        mismatch = f"model and data={spec.name} do not fit"
        check_fit(model, [images], tuple(images.shape), mismatch, alone=True)
        self.mean, self.std = pixel_statistics(spec, next(model.parameters()).device)
        self.metrics = NamedMetrics(
            metrics,
            self.task,
            sizes={"data_range": 1.0},
            example=(torch.zeros(images.shape), torch.ones(images.shape)),
            measured=("loss", "reconstruction", "kl", "elbo"),
        )
        self.mix = self.with_noise
        self.shown: tuple[Tensor, ...] = ()

    def with_noise(self, batch: Batch, draws: BatchDraws) -> Batch:
        """The images of a training batch and the noise of their codes."""
        noise = draws.normal(self.latent_dim).to(batch[0].device, non_blocking=True)
        return batch[0][1:], noise[1:]  # without the extra first sample, see data.splits.Mix

    def forward(self, phase: str, batch: Batch) -> tuple[Tensor, Sums]:
        images, noise = batch
        reconstruction, kl, _ = self.terms(self.model, images, noise)
        losses = reconstruction + self.beta * kl
        return losses.mean(), self.sums(reconstruction, kl)

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
        images, indices = batch[0], self.evaluated_indices(batch)
        each = [
            torch.randn(self.latent_dim, generator=seeded(EVAL_SEED, EVALUATION_STREAM, index))
            for index in indices
        ]
        noise = torch.stack(each).to(images.device)
        reconstruction, kl, logits = self.terms(model, images, noise)
        pairs = (self.pixels(images), logits.sigmoid())
        if indices.start == 0:
            self.shown = spread(pairs, NUM_SHOWN)
        self.metrics.update(pairs[1].contiguous(), pairs[0].contiguous())
        sums = self.sums(reconstruction, kl)
        return sums, {"loss": reconstruction + self.beta * kl}

    def derived(self, metrics: dict[str, float]) -> dict[str, float]:
        return {"elbo": -metrics["reconstruction"] - metrics["kl"]}

    def terms(self, model: Any, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction loss and KL of each image ``(N,)``, and the logits of its pixels."""
        mean, log_variance = (part.float() for part in model.encoder(images))
        logits = model.decoder(mean + (0.5 * log_variance).exp() * noise).float()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        pixels = self.pixels(images)
        if self.likelihood == "bernoulli":
            losses = F.binary_cross_entropy_with_logits(logits, pixels, reduction="none")
        else:
            scaled = (pixels - logits.sigmoid()) / self.noise_std
            losses = 0.5 * scaled.square() + math.log(self.noise_std * math.sqrt(2 * math.pi))
        return losses.sum((1, 2, 3)), kl, logits

    def pixels(self, images: Tensor) -> Tensor:
        """Undo the data's normalization: images in [0, 1]."""
        return (images.float() * self.std + self.mean).clamp(0, 1)

    def sums(self, reconstruction: Tensor, kl: Tensor) -> Sums:
        return {
            "loss": mean_over_batch(reconstruction + self.beta * kl),
            "reconstruction": mean_over_batch(reconstruction),
            "kl": mean_over_batch(kl),
        }

    def media(self, samples: dict[str, Tensor], split: Any, folder: Path) -> Media:
        """A picture of some images, each with its reconstruction on the right."""
        file = folder / "reconstructions.png"
        save_grid(torch.cat(self.shown, 3), file)
        return {"reconstructions": Picture(file, "images and their reconstructions")}

    def preview(self, model: nn.Module, folder: Path) -> Media:
        """A picture of images decoded from samples of the prior."""
        assert isinstance(model, VAE)
        file = folder / "samples.png"
        save_grid(model.sample(GRID, seeded(EVAL_SEED, LATENT_STREAM)), file)
        return {"samples": Picture(file, "of the same codes at every evaluation")}

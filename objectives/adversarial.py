"""Adversarial training of a generator and a discriminator (GAN, arXiv:1406.2661)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from data.splits import Batch
from objectives.base import Sums, check_fit, mean_over_batch
from objectives.generation import Generation

MISMATCH = "model and objective=adversarial do not fit"


class Adversarial(Generation):
    """GAN with the non-saturating loss: each update trains the discriminator, then the generator.

    Both losses are binary cross-entropies of the discriminator's logits. Each phase draws its own
    noise from torch's global generator, which the trainer reseeds at every update.
    """

    model: Any  # a pair, such as models.dcgan.DCGAN

    def check_model(self) -> None:
        """Raise ConfigError unless the model is a pair ``generator`` and ``discriminator``."""
        if set(dict(self.model.named_children())) != {"generator", "discriminator"}:
            raise ConfigError(
                f"{MISMATCH}: {type(self.model).__name__} is not a pair of a generator and a "
                "discriminator; use model=dcgan"
            )
        images = self.spec.example(2)
        noise = torch.zeros(2, *self.model.noise_shape)
        check_fit(self.model.generator, [noise], tuple(images.shape), MISMATCH, alone=True)
        check_fit(self.model.discriminator, [images], (2,), MISMATCH, alone=True)

    def phases(self) -> dict[str, nn.Module]:
        return {"discriminator": self.model.discriminator, "generator": self.model.generator}

    def forward(self, phase: str, batch: Batch) -> tuple[Tensor, Sums]:
        real = self.in_range(batch[0])
        noise = self.model.noise(len(real)).to(real.device, non_blocking=True)
        if phase == "discriminator":
            return self.discriminator_loss(real, noise)
        return self.generator_loss(noise)

    def discriminator_loss(self, real: Tensor, noise: Tensor) -> tuple[Tensor, Sums]:
        """Cross-entropy of classifying real images as real and generated ones as generated."""
        with torch.no_grad():
            generated = self.model.generator(noise)
        # two separate batches, so that batch norm sees only real or only generated images
        on_real, on_generated = self.model.discriminator(real), self.model.discriminator(generated)
        losses = F.softplus(-on_real.float()) + F.softplus(on_generated.float())
        return losses.mean(), {
            "discriminator/loss": mean_over_batch(losses),
            "discriminator/real_score": mean_over_batch(on_real.float().sigmoid()),
            "discriminator/generated_score": mean_over_batch(on_generated.float().sigmoid()),
        }

    def generator_loss(self, noise: Tensor) -> tuple[Tensor, Sums]:
        """Cross-entropy of generated images against the label "real" (non-saturating form)."""
        with frozen(self.model.discriminator):
            generated = self.model.generator(noise)
            losses = F.softplus(-self.model.discriminator(generated).float())
        return losses.mean(), {"generator/loss": mean_over_batch(losses)}


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Disable gradients of ``module``'s parameters inside the context.

    Gradients still flow through the module to its inputs. This saves a third of the backward pass
    and leaves the parameters' ``.grad`` to the phase that trains them.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)

"""Adversarial training: a discriminator and a generator against each other (arXiv:1406.2661)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from data.splits import Batch
from objectives.base import Sums, mean_over_batch, try_model
from objectives.generation import Generation, check_output


class Adversarial(Generation):
    """Two phases an update: the discriminator learns, then the generator, by non-saturating losses.

    Both losses are binary cross-entropies of the discriminator's logits. Each phase draws noise of
    its own from torch's global generator, whose state the checkpoint keeps.

    Args:
        fid_extractor, fid_cache: see :class:`Generation`.

    Raises:
        ConfigError: the model has no ``generator`` and ``discriminator``.
    """

    def __init__(
        self, model: nn.Module, spec: Any, fid_extractor: str | None, fid_cache: str
    ) -> None:
        super().__init__(model, spec, fid_extractor, fid_cache)
        if set(dict(model.named_children())) != {"generator", "discriminator"}:
            raise ConfigError(
                f"model and objective=adversarial do not fit: {type(model).__name__} is no pair of "
                "a generator and a discriminator; model=dcgan is"
            )
        misfit = "model and objective=adversarial do not fit: the {} cannot take its input"
        images = spec.example(2)
        shapes = {"generator": tuple(images.shape), "discriminator": (2,)}
        pair: Any = model
        inputs = {"generator": torch.zeros(2, *pair.noise_shape), "discriminator": images}
        for name, blank in inputs.items():
            network = model.get_submodule(name)
            output = try_model(network, [blank], misfit.format(name))
            check_output(output, shapes[name], network, "adversarial")

    def phases(self) -> dict[str, nn.Module]:
        pair: Any = self.model
        return {"discriminator": pair.discriminator, "generator": pair.generator}

    def forward(self, phase: str, batch: Batch) -> tuple[Tensor, Sums]:
        pair: Any = self.model
        real = self.in_range(batch[0])
        noise = pair.noise(len(real)).to(real.device)
        if phase == "discriminator":
            return self.discriminator_loss(real, noise)
        return self.generator_loss(noise)

    def discriminator_loss(self, real: Tensor, noise: Tensor) -> tuple[Tensor, Sums]:
        """Real images should be taken for real, generated ones should not."""
        pair: Any = self.model
        with torch.no_grad():
            generated = pair.generator(noise)
        # two batches, not one: the batch norms of the discriminator see one kind at a time
        on_real, on_generated = pair.discriminator(real), pair.discriminator(generated)
        losses = F.softplus(-on_real.float()) + F.softplus(on_generated.float())
        return losses.mean(), {
            "discriminator/loss": mean_over_batch(losses),
            "discriminator/real_score": mean_over_batch(on_real.float().sigmoid()),
            "discriminator/generated_score": mean_over_batch(on_generated.float().sigmoid()),
        }

    def generator_loss(self, noise: Tensor) -> tuple[Tensor, Sums]:
        """Generated images should be taken for real (the non-saturating form)."""
        pair: Any = self.model
        with frozen(pair.discriminator):
            losses = F.softplus(-pair.discriminator(pair.generator(noise)).float())
        return losses.mean(), {"generator/loss": mean_over_batch(losses)}


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """What is computed inside has no gradient with respect to ``module``'s parameters.

    Gradients pass through it all the same. It saves a third of the backward pass, and leaves the
    parameters' gradients to the phase they belong to.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)

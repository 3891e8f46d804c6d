"""Base class of image generators: noise in, images out."""

import torch
from torch import Tensor, nn

SAMPLES_AT_ONCE = 250  # bounds the memory of :meth:`GenerativeModel.sample`


class GenerativeModel(nn.Module):
    """Base of models that turn noise of ``noise_shape`` into images, one per row of noise.

    Subclasses implement ``generate``; an image must depend on the weights and the noise alone.
    """

    noise_shape: tuple[int, ...]

    def generate(self, noise: Tensor) -> Tensor:
        """``(N, *noise_shape)`` standard normal -> images ``(N, C, H, W)`` in [-1, 1]."""
        raise NotImplementedError

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Noise ``(count, *noise_shape)``, drawn on the CPU: the same on every device."""
        return torch.randn(count, *self.noise_shape, generator=generator)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` images ``(count, C, H, W)`` in [0, 1], on the model's device.

        Args:
            generator: CPU generator; None: torch's global one.
        """
        device = next(self.parameters()).device
        parts = self.noise(count, generator).split(SAMPLES_AT_ONCE)
        images = torch.cat([self.generate(part.to(device)) for part in parts])
        return ((images.float() + 1) / 2).clamp(0, 1)

"""A small variational autoencoder of strided convolutions (arXiv:1312.6114)."""

from typing import Any

from torch import Tensor, nn

from models.blocks import downsampled_size
from models.generative import GenerativeModel


class VAE(GenerativeModel):
    """``(N, C, H, W)`` -> logits of the reconstruction from the mean of the code, same shape.

    In training, the objective calls :class:`Encoder` and :class:`Decoder` and samples the code.

    Args:
        image_size: height and width in pixels; both multiples of 4.
        latent_dim: size of the code.
        width: channels of the larger map; the smaller one has twice as many.
    """

    def __init__(
        self, in_channels: int, image_size: tuple[int, int], latent_dim: int, width: int
    ) -> None:
        super().__init__()
        smallest = downsampled_size(image_size, 4)
        self.noise_shape = (latent_dim,)
        self.encoder = Encoder(in_channels, smallest, latent_dim, width)
        self.decoder = Decoder(in_channels, smallest, latent_dim, width)

    def forward(self, images: Tensor) -> Tensor:
        mean, _ = self.encoder(images)
        return self.decoder(mean)

    def generate(self, noise: Tensor) -> Tensor:
        return 2 * self.decoder(noise).sigmoid() - 1

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the networks separately: training calls each on its own."""
        self.encoder.compile(*args, **kwargs)
        self.decoder.compile(*args, **kwargs)


class Encoder(nn.Module):
    """``(N, C, H, W)`` -> mean and log-variance of the code, each ``(N, latent_dim)``."""

    def __init__(
        self, in_channels: int, smallest: tuple[int, int], latent_dim: int, width: int
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.head = nn.Linear(2 * width * smallest[0] * smallest[1], 2 * latent_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.head(self.features(images)).chunk(2, dim=1)
        return mean, log_variance


class Decoder(nn.Module):
    """Codes ``(N, latent_dim)`` -> logits of the pixels ``(N, C, H, W)``."""

    def __init__(
        self, out_channels: int, smallest: tuple[int, int], latent_dim: int, width: int
    ) -> None:
        super().__init__()
        self.stem = nn.Linear(latent_dim, 2 * width * smallest[0] * smallest[1])
        self.ups = nn.Sequential(
            nn.Unflatten(1, (2 * width, *smallest)),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, out_channels, 4, stride=2, padding=1),
        )

    def forward(self, codes: Tensor) -> Tensor:
        return self.ups(self.stem(codes))

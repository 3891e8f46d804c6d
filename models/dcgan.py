"""DCGAN: a generator and a discriminator of strided convolutions (arXiv:1511.06434)."""

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from models.blocks import downsampled_size
from models.generative import GenerativeModel

SMALLEST_MAP = 4  # pixels; the image is halved down to this size


class DCGAN(GenerativeModel):
    """Generator and discriminator; :meth:`generate` uses the generator alone.

    The image is halved down to a map of 4 to 7 pixels, or for as long as its size is even: 28 px
    are two levels, 32 px three, 64 px four. Channels double with every halving.

    Args:
        image_size: height and width in pixels; both multiples of 4.
        latent_dim: length of the noise vector.
        width: channels of the largest map.
    """

    def __init__(
        self, in_channels: int, image_size: tuple[int, int], latent_dim: int, width: int
    ) -> None:
        super().__init__()
        self.noise_shape = (latent_dim,)
        smallest, num_levels = smallest_map(image_size)
        widths = [width * 2**level for level in range(num_levels)]
        self.generator = Generator(latent_dim, widths[::-1], smallest, in_channels)
        self.discriminator = Discriminator(in_channels, widths, smallest)
        self.apply(init_dcgan)

    def generate(self, noise: Tensor) -> Tensor:
        return self.generator(noise)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the networks separately: training calls each on its own."""
        self.generator.compile(*args, **kwargs)
        self.discriminator.compile(*args, **kwargs)


class Generator(nn.Module):
    """``(N, latent_dim)`` -> ``(N, out_channels, H, W)`` in [-1, 1], doubling the map per level."""

    def __init__(
        self, latent_dim: int, widths: list[int], smallest: tuple[int, int], out_channels: int
    ) -> None:
        super().__init__()
        self.stem = norm_relu(nn.ConvTranspose2d(latent_dim, widths[0], smallest, bias=False))
        ups = [
            norm_relu(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False))
            for before, after in pairwise(widths)
        ]
        self.ups = nn.Sequential(*ups)
        self.head = nn.ConvTranspose2d(widths[-1], out_channels, 4, stride=2, padding=1)

    def forward(self, noise: Tensor) -> Tensor:
        return self.head(self.ups(self.stem(noise[:, :, None, None]))).tanh()


class Discriminator(nn.Module):
    """``(N, in_channels, H, W)`` -> ``(N,)`` logits of being real, halving the map per level."""

    def __init__(self, in_channels: int, widths: list[int], smallest: tuple[int, int]) -> None:
        super().__init__()
        # no norm after the input layer, as in the paper
        layers = [nn.Conv2d(in_channels, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for before, after in pairwise(widths):
            conv = nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Conv2d(widths[-1], 1, smallest)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)).flatten()


def norm_relu(conv: nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU())


def smallest_map(image_size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Size of the smallest map, and the number of halvings down to it."""
    downsampled_size(image_size, 4)
    height, width = image_size
    num_levels = 0
    while height % 2 == width % 2 == 0 and min(height, width) > SMALLEST_MAP:
        height, width, num_levels = height // 2, width // 2, num_levels + 1
    return (height, width), num_levels


def init_dcgan(module: nn.Module) -> None:
    """The paper's initialization: weights N(0, 0.02), norm scales N(1, 0.02), biases 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)

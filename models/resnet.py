"""ResNet-18, 34 and 50 (arXiv:1512.03385), for small images or with ImageNet's stem."""

from typing import Literal

from torch import Tensor, nn

from models.blocks import Bottleneck, Residual, conv_norm, mean_of_map

Stem = Literal["small", "imagenet"]
# depth -> block, blocks per stage, channels of the first stage
DEPTHS: dict[int, tuple[type[nn.Module], tuple[int, ...], int]] = {
    18: (Residual, (2, 2, 2, 2), 64),
    34: (Residual, (3, 4, 6, 3), 64),
    50: (Bottleneck, (3, 4, 6, 3), 256),
}


class ResNet(nn.Module):
    """A stem, four stages of residual blocks, the mean over the map, a linear classifier.

    ``(N, in_channels, H, W)`` -> ``(N, num_classes)`` for any height and width. Every stage but the
    first halves the map and doubles the channels.

    Args:
        depth: 18, 34 or 50 layers: 11, 21 or 24 million parameters.
        stem: ``small`` keeps the resolution (a 3x3 convolution); ``imagenet`` quarters it (a 7x7
            convolution and a max-pool), for images of some 200 pixels.
        zero_init_residual: start with every block as its shortcut: the last norm of each
            branch starts at zero (arXiv:1706.02677, section 5.1).
    """

    def __init__(
        self,
        depth: Literal[18, 34, 50],
        in_channels: int,
        num_classes: int,
        stem: Stem = "small",
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        block, num_blocks, channels = DEPTHS[depth]
        self.stem = build_stem(stem, in_channels)
        stages: list[nn.Module] = []
        width = 64
        for i, count in enumerate(num_blocks):
            out_channels = channels * 2**i
            blocks = [block(width, out_channels, stride=1 if i == 0 else 2)]
            blocks += [block(out_channels, out_channels) for _ in range(count - 1)]
            stages.append(nn.Sequential(*blocks))
            width = out_channels
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(width, num_classes)
        self.initialize(zero_init_residual)

    def initialize(self, zero_init_residual: bool) -> None:
        """He initialization of the convolutions (arXiv:1502.01852)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, Residual | Bottleneck):
                last = module.conv3 if isinstance(module, Bottleneck) else module.conv2
                nn.init.zeros_(last.get_parameter("norm.weight"))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(mean_of_map(self.stages(self.stem(images))))


def build_stem(stem: Stem, in_channels: int) -> nn.Module:
    if stem == "small":
        return nn.Sequential(conv_norm(in_channels, 64), nn.ReLU(inplace=True))
    return nn.Sequential(
        conv_norm(in_channels, 64, 7, stride=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    )

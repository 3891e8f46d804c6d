"""LightCNN: a small image classifier for embedded devices, under 100,000 parameters."""

from torch import Tensor, nn

from models.blocks import (
    DepthwiseSeparable,
    SqueezeExcitation,
    conv_norm,
    downsampled_size,
    flatten_map,
)


class LightCNN(nn.Module):
    """Two convolutions, a depthwise-separable one, squeeze-and-excitation, a linear classifier.

    ``(N, in_channels, H, W)`` -> ``(N, num_classes)``. The stem and the pooling each halve the map,
    so 28x28 digits reach the classifier as ``64 x 7 x 7``; ``image_size`` fixes its input width.

    Args:
        image_size: height and width in pixels; both multiples of 4.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: tuple[int, int],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        height, width = downsampled_size(image_size, 4)
        self.features = nn.Sequential(
            conv_norm(in_channels, 16, kernel_size=5, stride=2),
            nn.ReLU(inplace=True),
            conv_norm(16, 32),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),  # equivalent to ReLU before pooling, at a quarter of the cost
            DepthwiseSeparable(32, 64),
            SqueezeExcitation(64),
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(64 * height * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.dropout(flatten_map(self.features(images))))

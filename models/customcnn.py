"""CustomCNN: the two-convolution classifier of the CIFAR-10 tutorials."""

from torch import Tensor, nn

from models.blocks import downsampled_size, flatten_map


class CustomCNN(nn.Module):
    """Two 3x3 convolutions (32, 64), each max-pooled, then ``Linear(512)`` and the classifier.

    ``(N, in_channels, H, W)`` -> ``(N, num_classes)``; 32x32 images give ``Linear(64*8*8, 512)``.

    Args:
        image_size: height and width in pixels; both multiples of 4.
    """

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        height, width = downsampled_size(image_size, 4)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 32, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),  # equivalent to ReLU before pooling, at a quarter of the cost
            nn.Conv2d(32, 64, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
        )
        self.classifier = nn.Sequential(
            nn.Linear(64 * height * width, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(flatten_map(self.features(images)))

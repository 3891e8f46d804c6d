"""A small vision transformer (arXiv:2010.11929)."""

import torch
from torch import Tensor, nn

from models.attention import SelfAttention
from models.blocks import downsampled_size


class VisionTransformer(nn.Module):
    """Patch embedding, transformer blocks, mean over the tokens, linear classifier.

    ``(N, in_channels, H, W)`` -> ``(N, num_classes)``. The mean over the tokens replaces the class
    token and works as well (arXiv:2205.01580).

    Args:
        image_size: height and width in pixels; both multiples of ``patch_size``.
        patch_size: side of a square patch in pixels.
        width: channels of a token; a multiple of ``num_heads``.
        depth: number of blocks.
        dropout: dropout rate after the embedding and in every block.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: tuple[int, int],
        patch_size: int,
        width: int,
        depth: int,
        num_heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        rows, columns = downsampled_size(image_size, patch_size, ", the patch_size")
        self.embed = nn.Conv2d(in_channels, width, patch_size, stride=patch_size)
        self.positions = nn.Parameter(torch.empty(1, rows * columns, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, num_heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embed(images).flatten(2).transpose(1, 2)  # (N, patches, width)
        tokens = self.blocks(self.dropout(patches + self.positions))
        return self.classifier(self.norm(tokens).mean(1))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each with a residual connection.

    ``(N, tokens, width)`` -> the same shape.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, num_heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))

"""Images that do not fit in memory: decoded when they are needed, by the loader's workers."""

import os
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data.decode import Decoder
from data.draws import SAMPLE_STREAM, seeded
from data.splits import Batch, StreamedSplit


@dataclass(frozen=True)
class StreamedImages(StreamedSplit):
    """Image files; cropped at random in training, centred in evaluation."""

    paths: list[str]
    labels: Tensor  # (N,)
    sizes: Tensor  # (N,), bytes of each file
    decoder: Decoder
    position: tuple[int, int] | None = None  # seed and epoch, in training

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Batch:
        draws = None
        if self.position is not None:
            seed, epoch = self.position
            draws = seeded(seed, SAMPLE_STREAM, epoch, index)
        return self.decoder(self.paths[index], draws), self.labels[index]

    def augmented(self, seed: int, epoch: int) -> "StreamedImages":
        return replace(self, position=(seed, epoch))

    def take(self, indices: Tensor) -> "StreamedImages":
        paths = [self.paths[index] for index in indices.tolist()]
        return replace(self, paths=paths, labels=self.labels[indices], sizes=self.sizes[indices])

    def identity(self) -> tuple[Tensor, ...]:
        """Names and sizes of all files, wherever they are, and what the first and last one show."""
        if not self.paths:
            return ()
        above = len(os.path.commonpath([self.paths[0], self.paths[-1]]))
        names = "\n".join(path[above:] for path in self.paths).encode()
        listing = torch.frombuffer(bytearray(names), dtype=torch.uint8)
        return (*super().identity(), listing, self.labels, self.sizes)

"""Images that do not fit in memory: decoded when they are needed, by the loader's workers."""

import os
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data.decode import Decoder, unreadable
from data.splits import Batch, StreamedSplit


@dataclass(frozen=True)
class StreamedImages(StreamedSplit):
    """Image files; cropped at random in training, centred in evaluation."""

    paths: list[str]
    labels: Tensor  # (N,), int64
    decoder: Decoder

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Batch:
        return self.image(index), self.labels[index]

    def training_sample(self, index: int, generator: torch.Generator) -> Batch:
        return self.decoder(self.paths[index], generator), self.labels[index]

    def image(self, index: int) -> Tensor:
        return self.decoder(self.paths[index])

    def take(self, indices: Tensor) -> "StreamedImages":
        paths = [self.paths[index] for index in indices.tolist()]
        return replace(self, paths=paths, labels=self.labels[indices])

    def identity(self) -> tuple[Tensor, ...]:
        """Names and sizes of all files, wherever they are, and what the first and last one show."""
        if not self.paths:
            return ()
        above = len(os.path.commonpath([self.paths[0], self.paths[-1]]))
        names = os.fsencode("\n".join(path[above:] for path in self.paths))
        listing = torch.frombuffer(bytearray(names), dtype=torch.uint8)
        sizes = torch.tensor([status(path).st_size for path in self.paths])
        return (*super().identity(), listing, self.labels, sizes)


def status(path: str) -> os.stat_result:
    """Size and time of change of an image file."""
    try:
        return os.stat(path)
    except OSError as error:  # such as a link to a file that is gone
        raise unreadable(path, error) from error

"""Images a second that reach the training loop, beside what a torchvision DataLoader delivers.

    python benchmarks/input.py [--folder FOLDER] [--repeats 5]

Both sides deliver shuffled, augmented, normalized float batches from images in memory; what comes
out of a folder of JPEG files is measured with ``--folder``. Prints the median and the range of the
repeats, which take turns so that other load on the machine meets all alike. ``--smoke`` makes it
tiny.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).parent.parent))

from data.augment import HorizontalFlip, RandomAffine, RandomCrop
from data.image_folder import image_folder
from data.images import image_splits
from data.loader import Loader
from data.splits import Splits, TensorSplit

CPU = torch.device("cpu")


@dataclass
class Case:
    name: str
    batches: Callable[[int], Iterator[Any]]  # of an epoch
    batch_size: int
    limit: int | None  # batches measured, where an epoch would take too long


class Reference(Dataset):
    """What a user would write: one transform per sample."""

    def __init__(self, split: TensorSplit, transform: Callable[[Any], Tensor]) -> None:
        self.images, self.labels = split.tensors
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def ours(name: str, splits: Splits, batch_size: int, num_workers: int = 0) -> Case:
    loader = Loader(splits, CPU, 0, 0, 1, 1, batch_size, 500, num_workers)
    limit = None if isinstance(splits.train, TensorSplit) else 4000 // batch_size
    return Case(f"{name}, ours", loader.train, batch_size, limit)


def reference(
    name: str, split: TensorSplit, transforms: list[Any], batch_size: int, num_workers: int
) -> Case:
    to_float = [v2.ToDtype(torch.float32, scale=True)]
    transform = v2.Compose([*transforms, *to_float, v2.Normalize([0.5], [0.5])])
    loader = DataLoader(
        Reference(split, transform), batch_size, shuffle=True, num_workers=num_workers
    )
    label = f"{name}, torchvision, {num_workers} workers"
    return Case(label, lambda epoch: iter(loader), batch_size, 6000 // batch_size)


def random_split(count: int, channels: int, size: int) -> TensorSplit:
    images = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)
    return TensorSplit(images, torch.arange(count) % 10)


def cases(num_images: int, folder: str | None) -> list[Case]:
    mnist, cifar = random_split(num_images, 1, 28), random_split(num_images, 3, 32)
    kinds = [
        ("MNIST, plain", mnist, [], []),
        ("MNIST, affine", mnist, [RandomAffine()], [v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1))]),
        (
            "CIFAR, crop and flip",
            cifar,
            [RandomCrop(4), HorizontalFlip()],
            [v2.RandomCrop(32, 4), v2.RandomHorizontalFlip()],
        ),
    ]
    listed = []
    for name, split, augment, transforms in kinds:
        for batch_size in (64, 512):
            splits = image_splits("random", split, None, None, "0123456789", [0.5], [0.5], augment)
            listed.append(ours(f"{name}, batch {batch_size}", splits, batch_size))
        for num_workers in (0, 2):
            listed.append(reference(f"{name}, batch 64", split, transforms, 64, num_workers))
    if folder is not None:
        for resident in (True, False):
            splits = image_folder(
                root=folder,
                image_size=None,
                channels=3,
                val_fraction=0.1,
                resident=resident,
                max_resident_bytes=0,
                max_pixels=50_000_000,
                min_crop_area=0.35,
                mean=[0.5],
                std=[0.5],
                augment=[HorizontalFlip()],
            )
            how = "resident" if resident else "streamed, 2 workers"
            listed.append(ours(f"folder, {how}, batch 64", splits, 64, 0 if resident else 2))
    return listed


def images_per_second(case: Case, epoch: int) -> float:
    start = time.perf_counter()
    num_batches = sum(1 for _ in islice(case.batches(epoch), case.limit))
    return num_batches * case.batch_size / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="image folder to read, train/<class>/*")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    listed = cases(600 if arguments.smoke else 50_000, arguments.folder)
    repeats = 1 if arguments.smoke else arguments.repeats
    rates: dict[str, list[float]] = {case.name: [] for case in listed}
    for repeat in range(repeats):
        for case in listed:
            rates[case.name].append(images_per_second(case, repeat))
    print(f"images/s: median (lowest to highest) of {repeats}; {arguments.threads} threads")
    for name, measured in rates.items():
        middle = statistics.median(measured)
        print(f"{name:48} {middle:12,.0f}  ({min(measured):,.0f} to {max(measured):,.0f})")


if __name__ == "__main__":
    main()

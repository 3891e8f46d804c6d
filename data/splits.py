"""What a data set hands to the program: its splits, their spec, how a batch is prepared."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from core.errors import ConfigError
from core.instantiate import Part
from data.draws import BatchDraws

UNLABELLED = 255  # in a mask, uint8 (N, H, W): a pixel of no class, in no loss and no metric

Batch = tuple[Tensor, ...]
Prepare = Callable[[Batch, BatchDraws | None], Batch]
# mixes every sample of a batch but the first with the one before it
Mix = Callable[[Batch, BatchDraws], Batch]


class TensorSplit:
    """A split that fits in memory: tensors whose first dimension counts the samples.

    It is moved to the training device once; a batch is one gather per tensor.
    """

    def __init__(self, *tensors: Tensor) -> None:
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1:
            raise ValueError(f"tensors of one split differ in length: {sorted(lengths)}")
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> Batch:
        return tuple(tensor[0] for tensor in self.gather(torch.tensor([index])))

    def to(self, device: torch.device) -> "TensorSplit":
        moved = copy.copy(self)
        moved.tensors = tuple(tensor.to(device) for tensor in self.tensors)
        return moved

    def epoch_order(self, generator: torch.Generator) -> Tensor:
        """The indices of an epoch in the order of training, the same in every process."""
        return torch.randperm(len(self), generator=generator)

    def take(self, indices: Tensor) -> "TensorSplit":
        """The samples at ``indices`` alone."""
        return TensorSplit(*self.gather(indices))

    def take_for_evaluation(self, indices: Tensor) -> "TensorSplit":
        """The training samples at ``indices`` in the form that evaluation measures."""
        return self.take(indices)

    def batch(self, indices: Tensor) -> Batch:
        """The samples at ``indices``, which are on the CPU, where the split is."""
        return self.gather(indices.to(self.tensors[0].device, non_blocking=True))

    def gather(self, indices: Tensor) -> Batch:
        """The same for indices that are where the split is."""
        return tuple(tensor.index_select(0, indices) for tensor in self.tensors)


class StreamedSplit(Dataset[Batch], ABC):
    """A split too large for memory, read sample by sample in the loader's worker processes.

    ``split[i]`` is the sample as evaluation sees it.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def training_sample(self, index: int, generator: torch.Generator) -> Batch:
        """The sample as training sees it.

        Args:
            generator: for whatever is random about it; starts at the run's seed, the epoch and the
                index, so that neither the number of workers nor an interruption changes a sample.
        """

    @abstractmethod
    def take(self, indices: Tensor) -> "StreamedSplit":
        """The samples at ``indices`` alone."""

    def identity(self) -> tuple[Tensor, ...]:
        """A cheap fingerprint of the samples."""
        return (*self[0], *self[len(self) - 1]) if len(self) else ()


@dataclass(frozen=True)
class Quantities:
    """The numbers that a regression predicts, one entry each.

    Attributes:
        units: of the values; empty where there is none.
        mean, std: of the training targets, in these units: models predict ``(y - mean) / std``.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.names), len(self.units), len(self.mean), len(self.std)}
        if len(lengths) != 1 or not self.names or min(self.std) <= 0:
            raise ValueError("quantities should each have a name, unit, mean and a std above 0")


def quantities(names: Sequence[str], units: Sequence[str], targets: Tensor) -> Quantities:
    """Those of the training targets ``(N, len(names))``.

    Raises:
        ConfigError: one of them is the same in all samples, or not finite.
    """
    values = targets.double()
    mean, std = values.mean(0), values.std(0, correction=0)
    for name, deviation in zip(names, std.tolist(), strict=True):
        if not 0 < deviation < float("inf"):
            why = "is the same in all training samples" if deviation == 0 else "is not finite"
            raise ConfigError(f"the target {name} {why}: there is nothing to learn")
    return Quantities(tuple(names), tuple(units), tuple(mean.tolist()), tuple(std.tolist()))


@dataclass(frozen=True)
class ImageSpec:
    """What models, objectives and predictions need to know of an image data set.

    Model settings that are null in the config are filled from the attribute of the same name.
    """

    name: str
    in_channels: int
    image_size: tuple[int, int]  # height, width in pixels
    class_names: tuple[str, ...]  # of images, or of the pixels of masks; empty: see quantities
    mean: tuple[float, ...]  # per channel, of images in [0, 1]
    std: tuple[float, ...]
    synthetic: bool = False  # generated: every record says so
    background: float | None = None  # see data.background; None: the borders differ, or are RGB
    quantities: Quantities | None = None  # what is to be predicted, where it is no class

    kind: ClassVar[str] = "image"
    usual_model: ClassVar[str] = "lightcnn"  # of conf/model, to suggest for such data

    def __post_init__(self) -> None:
        if min(self.in_channels, *self.image_size) < 1 or not self.num_outputs:
            raise ValueError("channels, height, width and the number of classes should be above 0")
        if not len(self.mean) == len(self.std) == self.in_channels or min(self.std) <= 0:
            raise ValueError("mean and std should have a value per channel, those of std above 0")

    @property
    def num_outputs(self) -> int:
        """Of a model: one for every class or quantity."""
        return len(self.quantities.names if self.quantities else self.class_names)

    @property
    def num_classes(self) -> int:
        """The same under the name that most models have for it."""
        return self.num_outputs

    @property
    def height(self) -> int:
        return self.image_size[0]

    @property
    def width(self) -> int:
        return self.image_size[1]

    def example(self, count: int) -> Tensor:
        """Zeros in the shape of a prepared batch, to try a model on."""
        return torch.zeros(count, self.in_channels, *self.image_size)


@dataclass
class Splits(Part):
    """A data set: any of the splits is a ``TensorSplit``, a ``StreamedSplit`` or a map-style
    torch ``Dataset``; validation and test may be None.

    Attributes:
        spec: what models and objectives need to know.
        prepare: turns a raw batch, already on the device, into the model's input; gets random
            draws for training batches and None for evaluation.
        notes: what a person should know, such as texts that were cut.
        train_eval: samples of ``train`` that every evaluation measures as well; None: none.
        collate: makes a batch, a tuple of tensors, of a list of samples, such as those of different
            sizes; None: they are stacked, and should be of one size.

    Raises:
        ConfigError: a split has no length, or no access by index and is no iterable data set.
    """

    train: Any
    val: Any
    test: Any
    spec: Any
    prepare: Prepare = field(default=lambda batch, draws: batch)
    notes: list[str] = field(default_factory=list)
    train_eval: Any = None
    collate: Callable[[list[Any]], Any] | None = None

    def __post_init__(self) -> None:
        self.train = indexed(self.train, "train")
        self.val, self.test = indexed(self.val, "val"), indexed(self.test, "test")


def indexed(split: Any, name: str) -> Any:
    """The split, an iterable one as :class:`InOrder`.

    Raises:
        ConfigError: it has no length.
    """
    if split is not None and not hasattr(split, "__len__"):
        raise ConfigError(
            f"the {name} split is a {type(split).__name__} without a length: a schedule needs to "
            "know how many samples an epoch has; give it a __len__"
        )
    return InOrder(split) if isinstance(split, IterableDataset) else split


class InOrder(Dataset[Any]):
    """An iterable data set as one that is read by index, from low to high.

    Every process and worker reads all of it and passes over what is not its own; going on in the
    middle passes over what was there before. ``set_epoch``, where it has that, is called before
    each pass of training: what it shuffles should depend on nothing else.
    """

    def __init__(self, samples: Any) -> None:
        self.samples = samples
        self.epoch: int | None = None
        self.iterator: Iterator[Any] | None = None
        self.position = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getstate__(self) -> dict[str, Any]:
        """Of what a worker process is given: it begins anew."""
        return self.__dict__ | {"iterator": None}

    def epoch_order(self, generator: torch.Generator) -> Tensor:
        return torch.arange(len(self))

    def __getitem__(self, index: int) -> Any:
        return self.read(index, None)

    def read(
        self, index: int, epoch: int | None, before_each: Callable[[int], None] = lambda _: None
    ) -> Any:
        """The sample at ``index`` of a pass.

        Args:
            epoch: of training; None for evaluation.
            before_each: called with the index of every sample that is read on the way.

        Raises:
            ConfigError: there are fewer samples than the length says.
        """
        if self.iterator is None or epoch != self.epoch or index < self.position:
            if epoch is not None and hasattr(self.samples, "set_epoch"):
                self.samples.set_epoch(epoch)
            self.iterator, self.epoch, self.position = iter(self.samples), epoch, 0
        sample = None
        while self.position <= index:
            before_each(self.position)
            try:
                sample = next(self.iterator)
            except StopIteration:
                raise ConfigError(
                    f"{type(self.samples).__name__} ended after {self.position} samples, and its "
                    f"length is {len(self)}"
                ) from None
            self.position += 1
        return sample

"""The interface of a data set: its splits, their spec, and how a batch is prepared."""

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

UNLABELLED = 255  # in a mask, uint8 (N, H, W): pixel without a class, ignored by losses and metrics

Batch = tuple[Tensor, ...]
Prepare = Callable[[Batch, BatchDraws | None], Batch]
# mixes every sample of a batch but the first with the one before it
Mix = Callable[[Batch, BatchDraws], Batch]


class TensorSplit:
    """A resident split: tensors whose first dimension counts the samples.

    It is moved to the training device once; a batch is one gather per tensor.
    """

    def __init__(self, *tensors: Tensor) -> None:
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1:
            raise ValueError(f"tensors of one split differ in length: {sorted(lengths)}")
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    @property
    def labels(self) -> Tensor:
        """The targets of all samples ``(N, ...)``."""
        return self.tensors[-1]

    def identity(self) -> tuple[Tensor, ...]:
        """The tensors of which a checkpoint holds the checksums."""
        return self.tensors

    def __getitem__(self, index: int) -> Batch:
        return tuple(tensor[0] for tensor in self.gather(torch.tensor([index])))

    def to(self, device: torch.device) -> "TensorSplit":
        moved = copy.copy(self)
        moved.tensors = tuple(tensor.to(device) for tensor in self.tensors)
        return moved

    def epoch_order(self, generator: torch.Generator) -> Tensor:
        """The sample indices of an epoch in training order, the same in every process."""
        return torch.randperm(len(self), generator=generator)

    def take(self, indices: Tensor) -> "TensorSplit":
        """The subset at ``indices``."""
        return TensorSplit(*self.gather(indices))

    def take_for_evaluation(self, indices: Tensor) -> "TensorSplit":
        """The subset at ``indices`` in the form that evaluation measures."""
        return self.take(indices)

    def batch(self, indices: Tensor) -> Batch:
        """The samples at ``indices`` (on the CPU), gathered on the split's device."""
        return self.gather(indices.to(self.tensors[0].device, non_blocking=True))

    def gather(self, indices: Tensor) -> Batch:
        """Like :meth:`batch`, for ``indices`` on the split's device."""
        return tuple(tensor.index_select(0, indices) for tensor in self.tensors)


class StreamedSplit(Dataset[Batch], ABC):
    """A split too large for memory, read sample by sample in the loader's worker processes."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample(self, index: int, generator: torch.Generator | None) -> Batch:
        """The sample as training sees it, or evaluation.

        Args:
            generator: source of randomness of training, seeded by the run's seed, the epoch and the
                index, so that neither the number of workers nor resuming changes a sample; None:
                evaluation.
        """

    def __getitem__(self, index: int) -> Batch:
        return self.sample(index, None)

    @abstractmethod
    def take(self, indices: Tensor) -> "StreamedSplit":
        """The subset at ``indices``."""

    def identity(self) -> tuple[Tensor, ...]:
        """A cheap fingerprint of the samples."""
        return (*self[0], *self[len(self) - 1]) if len(self) else ()


@dataclass(frozen=True)
class Quantities:
    """The targets of a regression, one entry per predicted number.

    Attributes:
        units: unit of each target; empty if it has none.
        mean, std: statistics of the training targets; models predict ``(y - mean) / std``.
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
    """The quantities with the statistics of the training targets ``(N, len(names))``.

    Raises:
        ConfigError: if a target is constant or not finite.
    """
    values = targets.double()
    mean, std = values.mean(0), values.std(0, correction=0)
    for name, deviation in zip(names, std.tolist(), strict=True):
        if not 0 < deviation < float("inf"):
            why = "is the same in all training samples" if deviation == 0 else "is not finite"
            raise ConfigError(f"the target {name} {why}: there is nothing to learn")
    return Quantities(tuple(names), tuple(units), tuple(mean.tolist()), tuple(std.tolist()))


class Outputs:
    """Base of specs whose targets are classes or quantities."""

    class_names: tuple[str, ...]
    quantities: Quantities | None

    @property
    def num_outputs(self) -> int:
        """Number of model outputs: one per class or quantity."""
        return len(self.quantities.names if self.quantities else self.class_names)

    @property
    def num_classes(self) -> int:
        """Alias of ``num_outputs``, under the name that most models use."""
        return self.num_outputs


@dataclass(frozen=True)
class ImageSpec(Outputs):
    """Properties of an image data set that models, objectives and predictions need.

    Model settings that are null in the config are filled from the attribute of the same name.
    """

    name: str
    in_channels: int
    image_size: tuple[int, int]  # height, width in pixels
    class_names: tuple[str, ...]  # of images or of mask pixels; empty for regression
    mean: tuple[float, ...]  # per channel, of images in [0, 1]
    std: tuple[float, ...]
    synthetic: bool = False  # generated data, marked in every record
    background: float | None = None  # shared border brightness; None: they differ, or RGB
    quantities: Quantities | None = None  # targets of a regression

    kind: ClassVar[str] = "image"
    usual_model: ClassVar[str] = "lightcnn"  # name in conf/model to suggest for such data

    def __post_init__(self) -> None:
        if min(self.in_channels, *self.image_size) < 1 or not self.num_outputs:
            raise ValueError("channels, height, width and the number of classes should be above 0")
        if not len(self.mean) == len(self.std) == self.in_channels or min(self.std) <= 0:
            raise ValueError("mean and std should have a value per channel, those of std above 0")

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
    """A data set: its splits, their spec, and how a batch is prepared.

    A split is a ``TensorSplit``, a ``StreamedSplit`` or a torch ``Dataset``; ``val`` and ``test``
    may be None.

    Attributes:
        spec: properties that models and objectives need.
        prepare: turns a raw batch, already on the device, into the model's input; gets random
            draws for training batches and None for evaluation.
        notes: messages to the user, for example that documents were truncated.
        train_eval: training samples that every evaluation measures as well; None: none.
        collate: turns a list of samples into a batch, a tuple of tensors; None: stack samples,
            which must have the same size.

    Raises:
        ConfigError: if a split has no length.
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
    """The split, wrapped in :class:`IterableSplit` if it is iterable.

    Raises:
        ConfigError: if it has no length.
    """
    if split is not None and not hasattr(split, "__len__"):
        raise ConfigError(
            f"the {name} split is a {type(split).__name__} without a length: schedules need "
            "the number of samples per epoch; give it a __len__"
        )
    return IterableSplit(split) if isinstance(split, IterableDataset) else split


class IterableSplit(Dataset[Any]):
    """Access by ascending index to an iterable data set.

    Every process and worker iterates over all samples and skips those of the others; resuming
    skips the samples already seen. ``set_epoch``, if the data set has it, is called before each
    training pass; shuffling should depend on nothing else.
    """

    def __init__(self, samples: Any) -> None:
        self.samples = samples
        self.epoch: int | None = None
        self.iterator: Iterator[Any] | None = None
        self.position = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the iterator: a worker process starts its own."""
        return self.__dict__ | {"iterator": None}

    def epoch_order(self, generator: torch.Generator) -> Tensor:
        return torch.arange(len(self))

    def __getitem__(self, index: int) -> Any:
        return self.read(index, None)

    def read(
        self, index: int, epoch: int | None, before_each: Callable[[int], None] = lambda _: None
    ) -> Any:
        """The sample at ``index`` of the pass for ``epoch``.

        Args:
            epoch: training epoch; None for evaluation.
            before_each: called with the index of every sample before it is read or skipped.

        Raises:
            ConfigError: if there are fewer samples than the length says.
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
                    f"{type(self.samples).__name__} ended after {self.position} samples, but its "
                    f"length is {len(self)}"
                ) from None
            self.position += 1
        return sample

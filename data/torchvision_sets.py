"""Data sets that torchvision downloads, checks and reads."""

import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import ConfigError, reason
from core.schema import BelowOne
from data.cache import cached_tensors
from data.held_out import split_off, train_val_test
from data.images import Augment, image_splits
from data.splits import Splits, TensorSplit
from data.stored_images import image_settings

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def mnist(
    root: str,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """55,000 training, 5,000 validation and 10,000 test digits, 1x28x28.

    Read from ``root/MNIST/raw``; downloaded if missing. Validation is a twelfth of the 60,000
    training digits, stratified by class.

    Raises:
        ConfigError: if a file is damaged, or the files can be neither found nor downloaded.
    """
    parts = published("MNIST", root, val_fraction=1 / 12)
    return image_splits("mnist", *train_val_test(parts), "0123456789", mean, std, augment)


def cifar10(
    root: str,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    augment: Sequence[Augment] = (),
) -> Splits:
    """45,000 training, 5,000 validation and 10,000 test images, 3x32x32.

    Read from ``root/cifar-10-batches-py``; downloaded if missing or not as published. Validation is
    a tenth of the 50,000 training images, stratified by class.

    Raises:
        ConfigError: if the files can be neither found nor downloaded.
    """
    parts = published("CIFAR10", root, val_fraction=0.1)
    return image_splits("cifar10", *train_val_test(parts), CIFAR10_CLASSES, mean, std, augment)


def published(name: str, root: str, val_fraction: float) -> dict[str, TensorSplit]:
    """The splits of torchvision's data set ``name``, which holds its images as arrays."""
    parts = {}
    for part in ("train", "test"):
        samples = read_set(set_class(name), root, {"train": part == "train"})
        images = channels_first(torch.as_tensor(samples.data))
        parts[part] = TensorSplit(images, torch.as_tensor(samples.targets))
    return split_off(parts, {"val": val_fraction})


def torchvision_set(
    name: str,
    root: str,
    options: dict[str, Any] | None,
    test_fraction: BelowOne,
    **settings: Any,
) -> Splits:
    """Any data set of ``torchvision.datasets`` whose samples are an image and its class.

    Images that torchvision holds as an array are used as they are unless ``image_size`` is given;
    others are decoded like those of :func:`data.image_folder.image_folder`.

    Args:
        options: further arguments of the class, such as ``split: letters`` of EMNIST.
        test_fraction: share of training, if the data set has no test split.
        settings: see :class:`data.stored_images.ImageSettings`.

    Raises:
        ConfigError: if there is no such data set, it is not for classification, it can be neither
            read nor downloaded, or a setting is wrong.
    """
    images = image_settings(settings, torchvision_set)
    kind, options = set_class(name), options or {}
    sets = {part: read_set(kind, root, options | extra) for part, extra in parts_of(kind, options)}
    sets = {part: data for part, data in sets.items() if data is not None}
    labels = {part: labels_of(data, name, part, root) for part, data in sets.items()}
    names = names_of(sets["train"], labels["train"])
    arrays = {part: array for part, data in sets.items() if (array := array_of(data)) is not None}
    parts: dict[str, Any]
    if images.image_size is None and len(arrays) == len(sets):
        parts = {part: TensorSplit(array, labels[part]) for part, array in arrays.items()}
    else:
        sources = {part: partial(image_of, data) for part, data in sets.items()}
        parts = images.stored(name, sources, labels)
    return images.splits(name.lower(), images.loaded(parts, test_fraction), names)


def image_of(samples: Any, place: int) -> Any:
    return samples[place][0]


def set_class(name: str) -> type:
    """The class of a data set; raises ConfigError if torchvision has none of that name."""
    from torchvision import datasets  # takes a second to import: only when used

    dataset_class = getattr(datasets, name, None) if name in datasets.__all__ else None
    if not (inspect.isclass(dataset_class) and issubclass(dataset_class, datasets.VisionDataset)):
        nearest = get_close_matches(name, datasets.__all__, n=1, cutoff=0.4)
        hint = f"did you mean {nearest[0]}?" if nearest else "see torchvision.datasets"
        raise ConfigError(f"data.name={name}: torchvision has no such data set; {hint}")
    return dataset_class


def arguments_of(kind: type) -> set[str]:
    """Constructor arguments of a class, and of its bases if it passes further ones on."""
    names: set[str] = set()
    for base in kind.__mro__:
        parameters = inspect.signature(base).parameters
        names |= parameters.keys()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return names


def parts_of(kind: type, options: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The splits to read, and their constructor arguments: ``train`` or ``split``."""
    parameters = arguments_of(kind)
    if "train" in parameters:
        return [("train", {"train": True}), ("test", {"train": False})]
    if "split" in parameters and "split" not in options:
        return [(part, {"split": part}) for part in ("train", "val", "test")]
    return [("train", {})]


def read_set(kind: type, root: str, options: dict[str, Any]) -> Any:
    """The data set, downloaded if missing; None if it has no such split.

    Raises:
        ConfigError: if it can be neither read nor downloaded.
    """
    defaults = {"root": root, "download": True}
    settings = {key: defaults[key] for key in defaults if key in arguments_of(kind)} | options
    unknown = options.get("split") in ("val", "test")
    try:
        return kind(**settings)
    except Exception as error:  # no network, no permission, a damaged file
        if isinstance(error, ValueError) and unknown and "split" in str(error):
            return None
        if isinstance(error, ValueError) and options.get("split") == "train":
            return read_set(kind, root, options | {"split": "trainval"})
        raise ConfigError(
            f"data.root={root}: {kind.__name__} can be neither read nor downloaded: "
            f"{reason(error).rstrip(':')}; without a network, copy its files there; delete a "
            "damaged file to download it again"
        ) from error


def labels_of(samples: Any, name: str, part: str, root: str) -> Tensor:
    """The classes of all samples ``(N,)``; cached in ``root`` if every sample must be read.

    Raises:
        ConfigError: if the samples are not images with one class each.
    """
    targets = getattr(samples, "targets", getattr(samples, "labels", None))
    try:
        if targets is None:
            listing = sha256(f"{name} {part} {len(samples)}".encode()).hexdigest()
            cache = Path(root) / f".labels_{name.lower()}_{part}.pt"

            def read() -> tuple[Tensor, ...]:
                return (torch.tensor([samples[i][1] for i in range(len(samples))]),)

            (targets,) = cached_tensors(cache, listing, read)
        labels = torch.as_tensor(targets)
        if labels.ndim != 1 or labels.is_floating_point():
            raise TypeError("other labels")
        return labels.long()
    except (TypeError, ValueError, IndexError, NotImplementedError) as error:
        raise ConfigError(
            f"data.name={name} is not a set of images with one class each; write a function in "
            "data/ that returns it as Splits"
        ) from error


def names_of(samples: Any, labels: Tensor) -> tuple[str, ...]:
    """The names of the classes, or their numbers as names."""
    count = int(labels.max()) + 1
    names = getattr(samples, "classes", None) or list(getattr(samples, "class_to_idx", ()))
    return tuple(map(str, names if len(names) >= count else range(count)))


def array_of(samples: Any) -> Tensor | None:
    """All images as uint8 ``(N, C, H, W)``; None if the data set holds no such array."""
    data = getattr(samples, "data", None)
    try:
        images = torch.as_tensor(data)
    except (TypeError, ValueError, RuntimeError):
        return None
    if images.dtype != torch.uint8 or images.ndim not in (3, 4) or len(images) != len(samples):
        return None
    return channels_first(images)


def channels_first(images: Tensor) -> Tensor:
    """Convert ``(N, H, W)`` or ``(N, H, W, C)`` to ``(N, C, H, W)``."""
    if images.ndim == 3:
        return images[:, None]
    if images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        return images.permute(0, 3, 1, 2).contiguous()
    return images

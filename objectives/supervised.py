"""Base of the objectives with targets: checks of model and data, class weights."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from core.errors import ConfigError
from data.loader import Loader
from data.splits import Batch
from models.outputs import prediction_of
from objectives.base import Objective, Sums, check_fit, mean_over_batch

MISSING_SHOWN = 5  # class names listed in a message


class Supervised(Objective):
    """Base of the objectives whose batches are ``(*inputs, targets)``.

    Subclasses implement :meth:`losses`, :meth:`check_targets` and ``evaluate``.

    Args:
        names: names of the classes, labels or quantities to predict.
        shape: expected shape of the model's output for two samples.
        class_weights: loss weight of each class, in the order of ``names``, or ``balanced``:
            computed from the training targets. Evaluation is unweighted.

    Raises:
        ConfigError: if the model does not accept the inputs, its output has another shape, or the
            weights are invalid.
    """

    # message for a model whose output has another shape
    output_mismatch: ClassVar[str] = "model.num_classes and data={} do not fit"

    def __init__(
        self,
        model: nn.Module,
        spec: Any,
        names: Sequence[str],
        shape: tuple[int, ...],
        class_weights: Any = None,
    ) -> None:
        super().__init__(model)
        self.spec = spec
        self.names = names
        check_class_weights(class_weights, names)
        self.class_weights = class_weights
        self.weight: Tensor | None = None
        example = spec.example(2)
        inputs = example if isinstance(example, tuple) else (example,)
        mismatch = f"model and data={spec.name} do not fit"
        check_fit(model, inputs, shape, mismatch, self.output_mismatch.format(spec.name))

    def setup(self, data: Loader) -> None:
        """Check the targets and set the class weights; raises ConfigError if either is invalid."""
        for name, split in data.splits.items():
            targets = all_targets(split)
            if targets is None:  # reading all samples would take too long: check the first
                targets = torch.as_tensor(split[0][-1])[None]
            self.check_targets(targets, name)
        if self.class_weights == "balanced":
            self.weight = self.balanced_weights(data.splits["train"])
        elif self.class_weights is not None:
            self.weight = torch.tensor(self.class_weights)
        if self.weight is not None:
            self.weight = self.weight.to(data.device, torch.float32)

    def check_targets(self, targets: Tensor, split: str) -> None:
        """Check the targets ``(N, ...)`` of a split (all, or only the first sample's).

        Raises:
            ConfigError: if their type, shape or values do not suit the objective.
        """
        raise NotImplementedError

    def losses(self, outputs: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of each sample ``(N,)``.

        Args:
            weight: class weights ``(classes,)``, in training only.
        """
        raise NotImplementedError

    def forward(self, phase: str, batch: Batch) -> tuple[Tensor, Sums]:
        *inputs, targets = batch
        losses = self.losses(prediction_of(self.model(*inputs)), targets, self.weight)
        return losses.mean(), {"loss": mean_over_batch(losses)}

    def balanced_weights(self, split: Any) -> Tensor:
        """The weights of ``class_weights=balanced``, from the targets of the training split.

        Raises:
            ConfigError: if the targets are not in memory, or a class has no samples.
        """
        targets = all_targets(split)
        if targets is None:
            raise ConfigError(
                "objective.class_weights=balanced needs a training split that has its labels in "
                "one tensor; give the weights as a list of numbers"
            )
        counts = self.class_counts(targets)
        missing = [name for name, n in zip(self.names, counts.tolist(), strict=True) if n == 0]
        if missing:
            raise ConfigError(
                "objective.class_weights=balanced: there are no training samples of "
                + ", ".join(missing[:MISSING_SHOWN])
            )
        return self.weights_of(counts, len(targets))

    def class_counts(self, targets: Tensor) -> Tensor:
        """The number of targets of each class ``(classes,)``."""
        return targets.flatten().bincount(minlength=len(self.names))[: len(self.names)]

    def weights_of(self, counts: Tensor, num_samples: int) -> Tensor:
        """Weights ``(classes,)`` inverse to the class frequencies, of mean 1 over the samples."""
        return counts.sum() / (len(counts) * counts)


def check_class_weights(weights: Any, names: Sequence[str]) -> None:
    """Raise ConfigError unless ``weights`` is None, ``balanced`` or one number per name."""
    if weights is None or weights == "balanced":
        return
    try:
        values = torch.tensor(weights, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):  # not numbers
        values = torch.zeros(0)
    is_valid = values.isfinite().all() and (values >= 0).all() and values.any()
    if values.shape != (len(names),) or not is_valid:
        raise ConfigError(
            f"objective.class_weights={weights} should be null, balanced or {len(names)} numbers, "
            f"0 or more and not all 0, one for each class: {', '.join(names)}"
        )


def all_targets(split: Any) -> Tensor | None:
    """The targets of all samples ``(N, ...)``; None if the samples would have to be read."""
    targets = getattr(split, "labels", None)
    return targets if isinstance(targets, Tensor) else None


def described_tensor(values: Tensor) -> str:
    """Dtype and shape of one row of ``values``, for messages."""
    return f"{values.dtype} of shape {tuple(values.shape[1:])}".removeprefix("torch.")

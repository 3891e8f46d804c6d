"""Base class of objectives, the interface between the trainer and a kind of training.

An objective owns the model and defines the loss, the phases of an update and the metrics. The
trainer only runs phases, so a new kind of training is a new file here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from core.errors import ConfigError, reason
from data.splits import Batch, Mix
from metrics.named import NamedMetrics, mode_of
from models.outputs import described, prediction_of

# name -> (sum over samples, number of samples); added up over batches and processes
Sums = dict[str, tuple[Tensor, int]]


@dataclass(frozen=True)
class Table:
    """A table, shown in W&B and saved as JSON in the run directory's ``media/``."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    image_columns: Sequence[str] = ()  # cells: file names in the table's folder, or empty


@dataclass(frozen=True)
class ConfusionMatrix:
    """``counts[i][j]``: the number of samples of class i that were predicted as class j."""

    class_names: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Picture:
    """An image file in the run directory."""

    file: Path
    caption: str = ""


@dataclass(frozen=True)
class Text:
    """Plain text."""

    content: str


Media = dict[str, Table | ConfusionMatrix | Picture | Text]


class Objective(nn.Module):
    """Base of all objectives. ``model`` is the module that is trained, averaged and saved.

    Subclasses implement ``forward`` and ``evaluate``; all other methods have defaults.
    """

    keeps_samples = False  # collect samples at every evaluation, not only at the test
    shows_samples = False  # log media at every evaluation, not only at the test
    metric_modes: ClassVar[dict[str, str]] = {}  # metric -> "min" or "max"
    # the model's output, by which predict.py chooses how to use it (deploy.answers, deploy.tasks);
    # None: only --test works
    outputs: ClassVar[
        Literal[
            "class_logits", "label_logits", "mask_logits", "values", "reconstructions",
            "token_logits", "images",
        ] | None
    ] = None  # fmt: skip
    takes_views = False  # whether batches may hold several views of an image (data.views)
    mix: Mix | None = None  # augmentation of a whole training batch, such as mixup
    # task of the metrics in ``objective.metrics``, as torchmetrics names it
    task: ClassVar[Literal["multiclass", "multilabel", "regression", "images"]] = "multiclass"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.metrics = NamedMetrics()  # updated in :meth:`evaluate`

    @classmethod
    def mode_of(cls, metric: str, settings: Mapping[str, Any]) -> str | None:
        """Whether ``metric`` should be maximized (``max``) or minimized (``min``); None: unknown.

        Args:
            settings: the ``objective`` section of the config.
        """
        if metric in cls.metric_modes:
            return cls.metric_modes[metric]
        named = mode_of(settings.get("metrics") or (), metric, cls.task)
        return named or ("min" if metric.endswith("loss") else None)

    def phases(self) -> dict[str, nn.Module]:
        """The phases of an update in order: name -> module whose parameters the phase trains."""
        return {"train": self.model}

    def forward(self, phase: str, batch: Batch) -> tuple[Tensor, Sums]:
        """The mean loss of a training batch in ``phase``, and sums for the training metrics."""
        raise NotImplementedError

    def after_backward(self, phase: str) -> Sums:
        """Hook between backward and clipping, once per update and phase.

        Returns sums to record as ``train/...``. It should not read values from the device: that
        would synchronize with the host at every update.
        """
        return {}

    def setup(self, data: Any) -> None:
        """Hook before the first update or evaluation, called once with the run's ``Loader``."""

    def begin_evaluation(self, first: int) -> None:
        """Called before every evaluation with the split index of this process's first sample."""
        self.next_sample = first

    def evaluated_indices(self, batch: Batch) -> range:
        """The split indices of the next evaluation batch; call it once per batch."""
        first = self.next_sample
        self.next_sample += len(batch[0])
        return range(first, self.next_sample)

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
        """Evaluate ``model`` (the trained weights or their average) on one batch.

        Returns:
            Sums for the metrics, and per-sample values for :meth:`media` (may be empty).
        """
        raise NotImplementedError

    def derived(self, metrics: dict[str, float]) -> dict[str, float]:
        """Further metrics computed from the means, such as perplexity from the loss."""
        return {}

    def conclude(
        self, model: nn.Module, samples: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics of a whole split that are not means over its samples.

        Args:
            samples: the per-sample values of :meth:`evaluate`, gathered from all processes, and
                their ``index`` in the split.

        Returns:
            The metrics, the same on every process, and further tensors for :meth:`media`.
        """
        return {}, {}

    def media(self, samples: dict[str, Tensor], split: Any, folder: Path) -> Media:
        """Media to log for a split, from the collected ``samples``; files go to ``folder``."""
        return {}

    def preview(self, model: nn.Module, folder: Path) -> Media:
        """Media to log at every evaluation, such as generated text or images."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """State to checkpoint besides the weights, the same on every process."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""


def check_fit(
    model: nn.Module,
    inputs: Sequence[Tensor],
    shape: tuple[int, ...],
    mismatch: str,
    output_mismatch: str | None = None,
    alone: bool = False,
) -> None:
    """Run ``model`` on a dummy batch of two, to report mismatched settings before training.

    Args:
        shape: expected shape of the prediction.
        mismatch: beginning of the message if the model does not accept the inputs.
        output_mismatch: the same if its prediction has another shape; None: ``mismatch``.
        alone: the model must return a bare tensor, not one inside a tuple, dict or dataclass.

    Raises:
        ConfigError: if the model fails on the inputs or returns another shape.
    """
    device, name = next(model.parameters()).device, type(model).__name__
    was_training = model.training
    try:
        with torch.no_grad():
            output = model.eval()(*(tensor.to(device) for tensor in inputs))
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError) as error:
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in inputs)
        why = reason(error)
        if why.startswith("view size is not compatible"):
            why += " (or set trainer.channels_last=false)"
        raise ConfigError(
            f"{mismatch}: {name} cannot take inputs of shape {shapes}: {why}"
        ) from error
    finally:
        model.train(was_training)
    prediction = output if alone else prediction_of(output)
    if isinstance(prediction, Tensor) and tuple(prediction.shape) == shape:
        return
    description = described(output)
    if prediction is not output:
        description += f", with prediction {described(prediction)},"
    raise ConfigError(
        f"{output_mismatch or mismatch}: {name} returns {description} for two samples instead "
        f"of one tensor of shape {shape}"
    )


def mean_over_batch(values: Tensor) -> tuple[Tensor, int]:
    """Per-sample values ``(N, ...)`` as an entry of :data:`Sums`."""
    return values.detach().sum(dtype=torch.float32), len(values)


def spread(tensors: Sequence[Tensor], count: int) -> tuple[Tensor, ...]:
    """About ``count`` evenly spaced samples of a batch (many splits are sorted by class)."""
    every = slice(None, None, max(1, len(tensors[0]) // count))
    return tuple(tensor[every][:count].cpu() for tensor in tensors)


def pixel_statistics(spec: Any, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """``spec.mean`` and ``spec.std``, shaped for images: ``images * std + mean`` is in [0, 1]."""
    mean, std = (torch.tensor(values, device=device) for values in (spec.mean, spec.std))
    return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)

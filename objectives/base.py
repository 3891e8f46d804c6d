"""What the trainer asks of an objective.

An objective owns the model and knows what is minimized, in which phases, and what is measured. The
trainer knows phases and never what they are for, so a new kind of training is a new file here.
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

# name -> (sum over samples, number of samples); sums add up over batches and processes
Sums = dict[str, tuple[Tensor, int]]


@dataclass(frozen=True)
class Table:
    """Rows to look at: shown in W&B, kept as JSON in the run directory's ``media/``."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    image_columns: Sequence[str] = ()  # whose cells name image files beside the table, or are empty


@dataclass(frozen=True)
class ConfusionMatrix:
    """``counts[i][j]``: samples of class i that were taken for class j."""

    class_names: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Picture:
    """An image file in the run directory."""

    file: Path
    caption: str = ""


@dataclass(frozen=True)
class Text:
    """A text as it stands."""

    content: str


Media = dict[str, Table | ConfusionMatrix | Picture | Text]


class Objective(nn.Module):
    """Base of all objectives. ``model`` is what is trained, saved, averaged and used afterwards.

    Subclasses implement ``forward`` and ``evaluate``; the rest has a default.
    """

    keeps_samples = False  # whether every evaluation, not only the test, collects samples
    shows_samples = False  # whether every evaluation, not only the test, shows what it collected
    metric_modes: ClassVar[dict[str, str]] = {}  # metric -> "min" or "max", whichever is better
    # what the model returns, so that predict.py knows how to use it; None: it can only be tested
    # (deploy.answers, deploy.uses)
    outputs: ClassVar[
        Literal[
            "class_logits", "label_logits", "mask_logits", "values", "reconstructions",
            "token_logits", "images",
        ] | None
    ] = None  # fmt: skip
    takes_views = False  # whether it knows what to do with data.views of every training image
    mix: Mix | None = None  # what is done to the samples of a training batch together
    # what the metrics of ``objective.metrics`` measure, in torchmetrics' word
    task: ClassVar[Literal["multiclass", "multilabel", "regression", "images"]] = "multiclass"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.metrics = NamedMetrics()  # to be updated in :meth:`evaluate`

    @classmethod
    def mode_of(cls, metric: str, settings: Mapping[str, Any]) -> str | None:
        """Whether more (``max``) or less (``min``) of ``metric`` is better; None: not known.

        Args:
            settings: the section ``objective`` of the config.
        """
        if metric in cls.metric_modes:
            return cls.metric_modes[metric]
        named = mode_of(settings.get("metrics") or (), metric, cls.task)
        return named or ("min" if metric.endswith("loss") else None)

    def phases(self) -> dict[str, nn.Module]:
        """The phases of one update, in order, and the module whose parameters each one trains."""
        return {"train": self.model}

    def forward(self, phase: str, batch: Batch) -> tuple[Tensor, Sums]:
        """The mean loss of a training batch in ``phase``, and what to record of it."""
        raise NotImplementedError

    def after_backward(self, phase: str) -> Sums:
        """Called once an update and phase, when the gradients are complete and before they are
        clipped; what to record of them, as ``train/...``.

        Reading a value from the device here would make every update wait for it.
        """
        return {}

    def setup(self, data: Any) -> None:
        """Called once, before the first update or evaluation, with the run's ``Loader``."""

    def begin_evaluation(self, first: int) -> None:
        """Called before every evaluation, with the index in the split of the first sample here."""
        self.next_sample = first

    def evaluated_indices(self, batch: Batch) -> range:
        """The indices in the split of the samples of an evaluation's next batch."""
        first = self.next_sample
        self.next_sample += len(batch[0])
        return range(first, self.next_sample)

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
        """Measure ``model`` (the trained one, or its average) on one batch.

        Returns:
            Sums for the metrics, and one value a sample for :meth:`media` (may be empty).
        """
        raise NotImplementedError

    def derived(self, metrics: dict[str, float]) -> dict[str, float]:
        """Further metrics, computed from the means (such as perplexity from the loss)."""
        return {}

    def conclude(
        self, model: nn.Module, samples: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics of the split as a whole, where they are no means over its samples.

        Args:
            samples: the per-sample values of :meth:`evaluate`, of all processes, and their
                ``index`` in the split.

        Returns:
            The metrics, the same on every process, and further tensors for :meth:`media`.
        """
        return {}, {}

    def media(self, samples: dict[str, Tensor], split: Any, folder: Path) -> Media:
        """What to show of a split: files in ``folder``, from its samples, where they were kept."""
        return {}

    def preview(self, model: nn.Module, folder: Path) -> Media:
        """What to show of ``model`` at every evaluation, such as something it generated."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """What goes from update to update beside the weights, the same on every process."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put :meth:`state` back."""


def check_fit(
    model: nn.Module,
    inputs: Sequence[Tensor],
    shape: tuple[int, ...],
    misfit: str,
    output_misfit: str | None = None,
    alone: bool = False,
) -> None:
    """Try ``model`` on two blank samples, so that a misfit is one line before any training.

    Args:
        shape: of what it should predict for them.
        misfit, output_misfit: what does not fit what, where it cannot take the samples, and where
            it predicts something else; None: the same.
        alone: it should return a tensor itself, not one among other things.

    Raises:
        ConfigError: they do not fit.
    """
    output = try_model(model, inputs, misfit)
    check_output(output, shape, model, output_misfit or misfit, alone)


def try_model(model: nn.Module, inputs: Sequence[Tensor], misfit: str) -> Any:
    """What ``model`` returns for ``inputs``.

    Raises:
        ConfigError: it cannot take them.
    """
    device = next(model.parameters()).device
    was_training = model.training
    try:
        with torch.no_grad():
            return model.eval()(*(tensor.to(device) for tensor in inputs))
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError) as error:
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in inputs)
        why = reason(error)
        if why.startswith("view size is not compatible"):
            why += " Or leave the model as it is and give trainer.channels_last=false"
        raise ConfigError(
            f"{misfit}: {type(model).__name__} cannot take inputs of shape {shapes}: {why}"
        ) from error
    finally:
        model.train(was_training)


def check_output(
    output: Any, shape: tuple[int, ...], model: nn.Module, misfit: str, alone: bool = False
) -> None:
    """Raises: ConfigError: what a model predicted for two samples is no tensor of ``shape``.

    Args:
        output: what it returned; see :func:`models.outputs.prediction_of`.
        alone: it should be a tensor itself, not one among other things.
    """
    found = output if alone else prediction_of(output)
    if isinstance(found, Tensor) and tuple(found.shape) == shape:
        return
    what = described(output)
    if found is not output:
        what += f", of which {described(found)} counts,"
    raise ConfigError(
        f"{misfit}: {type(model).__name__} returns {what} for two samples, it should be one "
        f"tensor {shape}"
    )


def mean_over_batch(values: Tensor) -> tuple[Tensor, int]:
    """Per-sample values as an entry of ``Sums``."""
    return values.detach().sum(dtype=torch.float32), len(values)


def spread(tensors: Sequence[Tensor], count: int) -> tuple[Tensor, ...]:
    """About ``count`` samples of a batch, at equal distances: many splits are sorted."""
    every = slice(None, None, max(1, len(tensors[0]) // count))
    return tuple(tensor[every][:count].cpu() for tensor in tensors)


def pixel_statistics(spec: Any, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """``spec.mean`` and ``spec.std``, shaped for images: ``images * std + mean`` is in [0, 1]."""
    mean, std = (torch.tensor(values, device=device) for values in (spec.mean, spec.std))
    return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)

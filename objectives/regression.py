"""Regression: numbers in units, predicted in deviations from their training mean."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from data.loader import Loader
from data.splits import Batch, Quantities
from metrics.named import NamedMetrics
from models.outputs import prediction_of
from objectives.base import (
    Media,
    Objective,
    Sums,
    Table,
    check_output,
    mean_over_batch,
    try_model,
)
from objectives.classification import all_labels

WORST = 20  # predictions shown at the end
LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.huber_loss,
}


class Regression(Objective):
    """The numbers of ``spec.quantities``; models see and make ``(y - mean) / std``.

    The loss is of these. ``mae``, ``rmse`` and ``r2`` are in the targets' own units, over all
    samples of a split at once; with several quantities, means over these, and for each
    ``mae_<name>`` and so on.

    Args:
        loss: ``mse``, ``l1`` or ``huber`` (squares up to one deviation, absolute beyond).
        metrics: further metrics of evaluations, by name: see :mod:`metrics.named`.

    Raises:
        ConfigError: the data have no numbers to predict, or the model does not fit them.
    """

    keeps_samples = True
    metric_modes: ClassVar = {"loss": "min", "mae": "min", "rmse": "min", "r2": "max"}
    outputs = "values"
    task = "regression"
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        spec: Any,
        loss: Literal["mse", "l1", "huber"] = "mse",
        metrics: Any = (),
    ) -> None:
        super().__init__(model)
        quantities = getattr(spec, "quantities", None)
        if quantities is None:
            hint = (
                "classes: choose objective=classification, or objective=multilabel where a sample "
                "has several"
                if getattr(spec, "class_names", ())
                else "none: data=diabetes and data=rotated_digits have"
            )
            raise ConfigError(
                f"objective=regression needs numbers to predict, data={spec.name} has {hint}"
            )
        if loss not in LOSSES:
            raise ConfigError(f"objective.loss={loss} should be one of {', '.join(LOSSES)}")
        self.quantities: Quantities = quantities
        self.spec = spec
        self.loss = LOSSES[loss]
        device = next(model.parameters()).device
        self.mean = torch.tensor(quantities.mean, device=device)
        self.std = torch.tensor(quantities.std, device=device)
        example = spec.example(2)
        inputs = example if isinstance(example, tuple) else (example,)
        output = try_model(model, inputs, f"model and data={spec.name} do not fit")
        check_output(output, (2, len(quantities.names)), model, "the number of outputs")
        count = len(quantities.names)
        self.metrics = NamedMetrics(
            metrics,
            self.task,
            sizes={"num_outputs": count},
            parts=quantities.names,
            example=(torch.rand(4, count), torch.rand(4, count)),
            measured=tuple(self.metric_modes),
        )

    def setup(self, data: Loader) -> None:
        for name, split in data.splits.items():
            check_targets(split, name, self.quantities)

    def forward(self, phase: str, batch: Batch) -> tuple[Tensor, Sums]:
        *inputs, targets = batch
        losses = self.losses(prediction_of(self.model(*inputs)), targets)
        return losses.mean(), {"loss": mean_over_batch(losses)}

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """``(N,)``, means over the quantities."""
        standardized = (targets - self.mean) / self.std
        return self.loss(outputs.float(), standardized, reduction="none").mean(1)

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
        *inputs, targets = batch
        outputs = prediction_of(model(*inputs)).float()
        predictions = outputs * self.std + self.mean
        self.metrics.update(predictions, targets)
        samples = {"prediction": predictions, "target": targets}
        return {"loss": mean_over_batch(self.losses(outputs, targets))}, samples

    def conclude(
        self, model: nn.Module, samples: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        targets = samples["target"].double()
        errors = samples["prediction"].double() - targets
        variances = (targets - targets.mean(0)).square().mean(0)
        measured = {
            "mae": errors.abs().mean(0),
            "rmse": errors.square().mean(0).sqrt(),
            "r2": 1 - errors.square().mean(0) / variances,
        }
        metrics = {name: values.mean().item() for name, values in measured.items()}
        names = self.quantities.names
        if len(names) > 1:
            for metric, values in measured.items():
                metrics |= {
                    f"{metric}_{name}": value
                    for name, value in zip(names, values.tolist(), strict=True)
                }
        return metrics, {}

    def media(self, samples: dict[str, Tensor], split: Any, folder: Path) -> Media:
        """The predictions that are furthest off, in deviations of the training targets."""
        errors = samples["prediction"] - samples["target"]
        deviations = (errors / self.std.cpu()).abs().amax(1)
        worst = deviations.argsort(descending=True)[:WORST]
        columns = ["index"]
        for name in self.quantities.names:
            columns += [name, f"predicted {name}"]
        rows = []
        for i in worst.tolist():
            pairs = torch.stack([samples["target"][i], samples["prediction"][i]], 1)
            rows.append([int(samples["index"][i]), *pairs.flatten().tolist()])
        return {"worst_predictions": Table(columns, rows)}


def check_targets(split: Any, name: str, quantities: Quantities) -> None:
    """Check all targets, or those of the first sample where the others are not known.

    Raises:
        ConfigError: they are no such numbers.
    """
    targets = all_labels(split)
    if targets is None:
        targets = torch.as_tensor(split[0][-1])[None]
    wanted = len(quantities.names)
    if not targets.is_floating_point() or targets.shape[1:] != (wanted,):
        found = f"{targets.dtype} of shape {tuple(targets.shape[1:])}".removeprefix("torch.")
        raise ConfigError(
            f"objective=regression needs {wanted} float of each sample, shape ({wanted},); the "
            f"targets of the {name} split are {found}"
        )
    if not targets.isfinite().all():
        raise ConfigError(f"a target of the {name} split is not finite")

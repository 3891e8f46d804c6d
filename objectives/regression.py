"""Regression of one or more quantities, standardized by the training set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from data.splits import Batch
from metrics.named import NamedMetrics
from models.outputs import prediction_of
from objectives.base import Media, Sums, Table, mean_over_batch
from objectives.supervised import Supervised, described_tensor

WORST = 20  # rows of the table of worst predictions
LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.huber_loss,
}


class Regression(Supervised):
    """Regression of ``spec.quantities``; models predict standardized ``(y - mean) / std``.

    The loss is computed on standardized values. ``mae``, ``rmse`` and ``r2`` are computed in the
    targets' units over all samples of a split; with several quantities they are averaged, and
    recorded for each one as ``mae_<name>`` etc.

    Args:
        loss: ``mse``, ``l1`` or ``huber`` (quadratic up to one standard deviation, then linear).
        metrics: names of additional evaluation metrics, see :mod:`metrics.named`.

    Raises:
        ConfigError: if the data have no quantities to predict, or the model does not fit them.
    """

    keeps_samples = True
    metric_modes: ClassVar = {"loss": "min", "mae": "min", "rmse": "min", "r2": "max"}
    outputs = "values"
    task = "regression"
    output_mismatch = "the number of outputs and data={} do not fit"
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        spec: Any,
        loss: Literal["mse", "l1", "huber"] = "mse",
        metrics: Any = (),
    ) -> None:
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
        count = len(quantities.names)
        super().__init__(model, spec, quantities.names, (2, count))
        self.loss = LOSSES[loss]
        device = next(model.parameters()).device
        self.mean = torch.tensor(quantities.mean, device=device)
        self.std = torch.tensor(quantities.std, device=device)
        self.metrics = NamedMetrics(
            metrics,
            self.task,
            sizes={"num_outputs": count},
            parts=quantities.names,
            example=(torch.rand(4, count), torch.rand(4, count)),
            measured=tuple(self.metric_modes),
        )

    def check_targets(self, targets: Tensor, split: str) -> None:
        wanted = len(self.names)
        if not targets.is_floating_point() or targets.shape[1:] != (wanted,):
            raise ConfigError(
                f"objective=regression needs {wanted} floats per sample, shape ({wanted},); the "
                f"targets of the {split} split are {described_tensor(targets)}"
            )
        if not targets.isfinite().all():
            raise ConfigError(f"a target of the {split} split is not finite")

    def losses(self, outputs: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        """Losses ``(N,)``, averaged over the quantities."""
        standardized = ((targets - self.mean) / self.std).float()  # huber_loss needs equal dtypes
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
        if len(self.names) > 1:
            for metric, values in measured.items():
                for name, value in zip(self.names, values.tolist(), strict=True):
                    metrics[f"{metric}_{name}"] = value
        return metrics, {}

    def media(self, samples: dict[str, Tensor], split: Any, folder: Path) -> Media:
        """A table of the predictions with the largest standardized error."""
        errors = samples["prediction"] - samples["target"]
        deviations = (errors / self.std.cpu()).abs().amax(1)
        worst = deviations.argsort(descending=True)[:WORST]
        columns = ["index"]
        for name in self.names:
            columns += [name, f"predicted {name}"]
        rows = []
        for i in worst.tolist():
            pairs = torch.stack([samples["target"][i], samples["prediction"][i]], 1)
            rows.append([int(samples["index"][i]), *pairs.flatten().tolist()])
        return {"worst_predictions": Table(columns, rows)}

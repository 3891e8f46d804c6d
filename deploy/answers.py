"""What the outputs of each kind of model say of a sample, in words and as rows of a file."""

import argparse
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deploy.inputs import Sample

Rows = list[dict[str, Any]]


class Answers:
    """Base of all kinds of outputs, see :attr:`objectives.base.Objective.outputs`.

    Args:
        spec: of the data.
        objective: the settings of the run's objective.
    """

    verb: ClassVar[str]  # what the model does with its inputs
    options: ClassVar[tuple[str, ...]] = ()  # of predict.py that only this kind heeds
    output_name: ClassVar[str] = "logits"  # in an exported file
    score_name: ClassVar[str] = "accuracy"

    def __init__(self, spec: Any, objective: dict[str, Any]) -> None:
        self.spec = spec

    def head(self) -> nn.Module:
        """What an exported file does with the model's outputs."""
        return nn.Identity()

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How good exported ``outputs`` are; the score is the mean over all entries."""
        raise NotImplementedError

    def agree(self, outputs: Tensor, expected: Tensor) -> Tensor:
        """Where two exported models say the same."""
        raise NotImplementedError

    def answer(
        self, sample: Sample, outputs: Tensor, options: argparse.Namespace
    ) -> tuple[list[str], Rows]:
        """Of the exported ``outputs`` of one sample: words for the terminal, rows for files."""
        raise NotImplementedError


class Classes(Answers):
    """Logits ``(N, classes)``: the likeliest class."""

    verb = "classifies"
    options = ("top_k",)

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(1) == targets).float()

    def agree(self, outputs: Tensor, expected: Tensor) -> Tensor:
        return outputs.argmax(1) == expected.argmax(1)

    def answer(
        self, sample: Sample, outputs: Tensor, options: argparse.Namespace
    ) -> tuple[list[str], Rows]:
        names = self.spec.class_names
        best = outputs.softmax(1).topk(min(options.top_k or 1, len(names)))
        found = zip(best.indices[0].tolist(), best.values[0].tolist(), strict=True)
        rows = [
            {"input": sample.name, "rank": rank, "class": names[index], "probability": probability}
            for rank, (index, probability) in enumerate(found, 1)
        ]
        return [f"{row['class']}  {row['probability']:.2%}" for row in rows], rows


class Labels(Answers):
    """Logits ``(N, labels)``: those whose probability is above the run's threshold."""

    verb = "labels"

    def __init__(self, spec: Any, objective: dict[str, Any]) -> None:
        super().__init__(spec, objective)
        self.threshold: float = objective.get("threshold", 0.5)

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (self.hold(outputs) == (targets == 1)).float()

    def agree(self, outputs: Tensor, expected: Tensor) -> Tensor:
        return (self.hold(outputs) == self.hold(expected)).all(1)

    def hold(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid() > self.threshold

    def answer(
        self, sample: Sample, outputs: Tensor, options: argparse.Namespace
    ) -> tuple[list[str], Rows]:
        found = zip(
            self.spec.class_names,
            outputs[0].sigmoid().tolist(),
            self.hold(outputs)[0].tolist(),
            strict=True,
        )
        rows = [
            {"input": sample.name, "label": label, "probability": probability, "holds": holds}
            for label, probability, holds in found
        ]
        holding = [f"{r['label']}  {r['probability']:.2%}" for r in rows if r["holds"]]
        return holding or ["no label"], rows


class Values(Answers):
    """Standardized numbers ``(N, quantities)``: in their own units."""

    verb = "predicts numbers from"
    output_name = "values"
    score_name = "MAE"
    tolerance = 1e-3  # deviations of the training targets

    def head(self) -> nn.Module:
        return Rescale(self.spec.quantities.mean, self.spec.quantities.std)

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs()

    def agree(self, outputs: Tensor, expected: Tensor) -> Tensor:
        allowed = self.tolerance * torch.tensor(self.spec.quantities.std)
        return ((outputs - expected).abs() <= allowed).all(1)

    def answer(
        self, sample: Sample, outputs: Tensor, options: argparse.Namespace
    ) -> tuple[list[str], Rows]:
        known = self.spec.quantities
        rows = [
            {"input": sample.name, "target": name, "value": value, "unit": unit}
            for name, unit, value in zip(known.names, known.units, outputs[0].tolist(), strict=True)
        ]
        return [f"{r['target']}  {r['value']:.6g} {r['unit']}".rstrip() for r in rows], rows


class Rescale(nn.Module):
    """Standardized values -> values in their units."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs * self.std + self.mean


# by what the objective says that its model returns
ANSWERS: dict[str | None, type[Answers]] = {
    "class_logits": Classes,
    "label_logits": Labels,
    "values": Values,
}

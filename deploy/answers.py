"""Turns the outputs of each kind of model into answers: text for the terminal, rows for files."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from data.decode import centred_crop, upright_size
from data.pictures import palette, save_grid
from data.splits import UNLABELLED
from deploy.inputs import Sample

Rows = list[dict[str, Any]]  # rows of the --json and --csv files
Answer = tuple[list[str], Rows]  # text for the terminal, rows


class Answers:
    """Base class: one subclass per kind of :attr:`objectives.base.Objective.outputs`.

    Args:
        spec: spec of the data.
        objective: the config of the run's objective.
    """

    verb: ClassVar[str]  # what the model does with its inputs, for messages
    tasks: ClassVar[tuple[str, ...]] = ()  # further tasks, besides those of its inputs
    options: ClassVar[tuple[str, ...]] = ()  # options of predict.py specific to this kind
    output_name: ClassVar[str] = "logits"  # name in the exported file
    score_name: ClassVar[str] = "accuracy"

    def __init__(self, spec: Any, objective: dict[str, Any]) -> None:
        self.spec = spec

    def head(self) -> nn.Module:
        """Postprocessing that the exported model applies to its outputs."""
        return nn.Identity()

    def scores(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Scores of the outputs for raw ``inputs``; the reported score is their mean."""
        raise NotImplementedError

    def agree(self, outputs: Tensor, expected: Tensor) -> Tensor:
        """Where two models agree ``(N, ...)``; for logits, on the class."""
        return outputs.argmax(1) == expected.argmax(1)

    def answer(self, sample: Sample, outputs: Tensor, options: argparse.Namespace) -> Answer:
        """The answer for one sample, from the outputs ``(1, ...)`` after :meth:`head`."""
        raise NotImplementedError


class Classes(Answers):
    """Logits ``(N, classes)``; the answer lists the most likely classes."""

    verb = "classifies"
    options = ("top_k",)

    def scores(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(1) == targets).float()

    def answer(self, sample: Sample, outputs: Tensor, options: argparse.Namespace) -> Answer:
        names = self.spec.class_names
        best = outputs.softmax(1).topk(min(options.top_k or 1, len(names)))
        ranked = zip(best.indices[0].tolist(), best.values[0].tolist(), strict=True)
        rows = [
            {"input": sample.name, "rank": rank, "class": names[index], "probability": probability}
            for rank, (index, probability) in enumerate(ranked, 1)
        ]
        return [f"{row['class']}  {row['probability']:.2%}" for row in rows], rows


class Labels(Answers):
    """Logits ``(N, labels)``; the answer lists the labels of probability above the threshold."""

    verb = "labels"

    def __init__(self, spec: Any, objective: dict[str, Any]) -> None:
        super().__init__(spec, objective)
        self.threshold: float = objective.get("threshold", 0.5)

    def scores(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return (self.is_present(outputs) == (targets == 1)).float()

    def agree(self, outputs: Tensor, expected: Tensor) -> Tensor:
        return (self.is_present(outputs) == self.is_present(expected)).all(1)

    def is_present(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid() > self.threshold

    def answer(self, sample: Sample, outputs: Tensor, options: argparse.Namespace) -> Answer:
        labels = zip(
            self.spec.class_names,
            outputs[0].sigmoid().tolist(),
            self.is_present(outputs)[0].tolist(),
            strict=True,
        )
        rows = [
            {"input": sample.name, "label": label, "probability": probability, "holds": holds}
            for label, probability, holds in labels
        ]
        present = [f"{r['label']}  {r['probability']:.2%}" for r in rows if r["holds"]]
        return present or ["no label"], rows


class Pictures(Answers):
    """Base class of answers that are image files."""

    options = ("output",)

    def __init__(self, spec: Any, objective: dict[str, Any]) -> None:
        super().__init__(spec, objective)
        self.name_counts: Counter[str] = Counter()

    def file(self, sample: Sample, kind: str, options: argparse.Namespace) -> Path:
        """The path of the answer, in ``--output`` or the run's ``predictions/``.

        Numbers the answers of images that have the same name in different folders.
        """
        assert sample.file is not None
        folder: Path = options.output or options.run_dir / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{sample.file.stem}_{kind}"
        self.name_counts[name] += 1
        number = self.name_counts[name]
        return folder / (f"{name}.png" if number == 1 else f"{name}_{number}.png")


class Masks(Pictures):
    """Logits ``(N, classes, H, W)``; the answer is a mask of the most likely classes."""

    verb = "segments"
    score_name = "pixel accuracy"

    def scores(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(1) == targets)[targets != UNLABELLED].float()

    def answer(self, sample: Sample, outputs: Tensor, options: argparse.Namespace) -> Answer:
        assert sample.file is not None
        mask = outputs.argmax(1)[0].to(torch.uint8)
        file = self.file(sample, "mask", options)
        save_mask(mask, sample.file, file)
        counts = mask.flatten().bincount(minlength=len(self.spec.class_names))
        rows = [
            {"input": sample.name, "mask": str(file), "class": name, "share": share}
            for name, share in zip(
                self.spec.class_names, (counts / mask.numel()).tolist(), strict=True
            )
            if share > 0
        ]
        rows.sort(key=lambda row: -row["share"])
        return [str(file), *(f"{row['class']}  {row['share']:.2%}" for row in rows)], rows


def save_mask(mask: Tensor, image: Path, file: Path) -> None:
    """Save a mask ``(H, W)`` in the size of its image, as a palette PNG of class indices.

    Regions that were cropped from the image are unlabelled.
    """
    with Image.open(image) as source:
        width, height = upright_size(source)
    left, top, right, bottom = map(
        round, centred_crop((width, height), (mask.shape[0], mask.shape[1]))
    )
    cropped = Image.fromarray(mask.numpy())
    full = Image.new("L", (width, height), UNLABELLED)
    size = (right - left, bottom - top)
    full.paste(cropped.resize(size, Image.Resampling.NEAREST), (left, top))
    full.putpalette(palette().flatten().tolist())  # turns the L image into a palette image
    full.save(file)


class Reconstructions(Pictures):
    """Logits of images ``(N, C, H, W)``; the answer is the reconstruction in [0, 1]."""

    verb = "reconstructs and generates"
    tasks = ("num_samples",)
    output_name = "reconstructions"
    score_name = "MSE"
    tolerance = 1 / 255

    def head(self) -> nn.Module:
        return nn.Sigmoid()

    def scores(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - inputs / 255).square()

    def agree(self, outputs: Tensor, expected: Tensor) -> Tensor:
        return ((outputs - expected).abs() <= self.tolerance).flatten(1).all(1)

    def answer(self, sample: Sample, outputs: Tensor, options: argparse.Namespace) -> Answer:
        (images,) = sample.tensors
        error = self.scores(outputs, images, images).mean().item()
        file = self.file(sample, "reconstruction", options)
        save_grid(outputs, file)
        row = {"input": sample.name, "reconstruction": str(file), "mse": error}
        return [str(file), f"MSE  {error:.4f}"], [row]


class Values(Answers):
    """Standardized values ``(N, quantities)``; the answer gives them in their units."""

    verb = "predicts numbers from"
    output_name = "values"
    score_name = "MAE"
    tolerance = 1e-3  # in standard deviations of the training targets

    def head(self) -> nn.Module:
        quantities = self.spec.quantities
        return Affine(torch.tensor(quantities.std), torch.tensor(quantities.mean))

    def scores(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs()

    def agree(self, outputs: Tensor, expected: Tensor) -> Tensor:
        allowed = self.tolerance * torch.tensor(self.spec.quantities.std)
        return ((outputs - expected).abs() <= allowed).all(1)

    def answer(self, sample: Sample, outputs: Tensor, options: argparse.Namespace) -> Answer:
        quantities = self.spec.quantities
        columns = quantities.names, quantities.units, outputs[0].tolist()
        rows = [
            {"input": sample.name, "target": name, "value": value, "unit": unit}
            for name, unit, value in zip(*columns, strict=True)
        ]
        return [f"{r['target']}  {r['value']:.6g} {r['unit']}".rstrip() for r in rows], rows


class Affine(nn.Module):
    """``x * scale + shift`` in fp32: normalizes pixels, or converts outputs to units."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        return x.float() * self.scale + self.shift


# Objective.outputs -> class
ANSWERS: dict[str | None, type[Answers]] = {
    "class_logits": Classes,
    "label_logits": Labels,
    "mask_logits": Masks,
    "reconstructions": Reconstructions,
    "values": Values,
}

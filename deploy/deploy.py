"""Export a finished classifier, quantize it, and measure what came out."""

import statistics
import timeit
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from core.errors import ConfigError
from data.loader import Loader
from deploy.export import (
    Deployable,
    Predict,
    export_onnx,
    export_torch,
    onnx_predict,
    quantize_int8,
)
from deploy.finished_run import FinishedRun

CALIBRATION_IMAGES = 500
NUM_THREADS = 1  # small devices have few, and more do not help with one small image
WARM_UPS = 20
REPEATS = 200


@dataclass(frozen=True)
class Measurement:
    """What a deployed model costs and how well it does: one row of the table."""

    name: str
    file: Path
    num_bytes: int
    latency_ms: float  # median of REPEATS single images
    split: str  # that the rest was measured on
    accuracy: float
    num_agreeing: int  # images with the class that the trained model gives
    num_images: int


def deploy(
    run: FinishedRun, export: str | None, quantize: str | None, folder: Path
) -> list[Measurement]:
    """Write the files asked for into ``folder`` and measure each on all of the test split.

    Data without one are measured on validation.

    Args:
        export: ``onnx`` or ``torch``; None with ``quantize`` is ``onnx``.
        quantize: ``int8`` or None.

    Raises:
        ConfigError: the data are gone, or have neither split.
    """
    torch.set_num_threads(NUM_THREADS)
    data = run.load_data()
    split = next((name for name in ("test", "val") if name in data.splits), None)
    if split is None:
        raise ConfigError(
            f"data={data.spec.name} has no test or validation split to check the exported model on"
        )
    folder.mkdir(parents=True, exist_ok=True)
    model = Deployable(run.model, run.spec).eval()
    # exporters would fix the strides of channels_last
    model = model.to(memory_format=torch.contiguous_format)
    expected, _ = classify_split(model, data, split)
    if export == "torch":
        file = folder / "model.pt2"
        return [measure("torch.export", file, export_torch(model, file), data, split, expected)]
    file = folder / "model.onnx"
    export_onnx(model, file)
    rows = [measure("ONNX float", file, onnx_predict(file, NUM_THREADS), data, split, expected)]
    if quantize == "int8":
        small = folder / "model_int8.onnx"
        quantize_int8(file, small, raw_images(data, "train", CALIBRATION_IMAGES))
        predict = onnx_predict(small, NUM_THREADS)
        rows.append(measure("ONNX int8", small, predict, data, split, expected))
    return rows


def measure(
    name: str, file: Path, predict: Predict, data: Loader, split: str, expected: Tensor
) -> Measurement:
    """Try a deployed model on a whole split.

    Args:
        expected: ``(N,)``, the classes that the trained model gives to the split.
    """
    classes, labels = classify_split(predict, data, split)
    return Measurement(
        name=name,
        file=file,
        num_bytes=file.stat().st_size,
        latency_ms=median_ms(predict, raw_images(data, split, 1)),
        split=split,
        accuracy=(classes == labels).float().mean().item(),
        num_agreeing=int((classes == expected).sum()),
        num_images=len(labels),
    )


@torch.inference_mode()
def classify_split(predict: Predict, data: Loader, split: str) -> tuple[Tensor, Tensor]:
    """The predicted class and the label of every sample, each ``(N,)``."""
    indices = torch.arange(len(data.splits[split])).split(data.eval_batch_size)
    classes, labels = [], []
    for batch in data.read(split, indices):
        classes.append(predict(batch[0]).argmax(1))
        labels.append(batch[1])
    return torch.cat(classes), torch.cat(labels)


def raw_images(data: Loader, split: str, count: int) -> Tensor:
    """``count`` images of a split, spread over all of it, as uint8 ``(N, C, H, W)``."""
    size = len(data.splits[split])
    indices = torch.arange(min(count, size)) * size // min(count, size)
    (batch,) = data.read(split, [indices])
    return batch[0]


@torch.inference_mode()
def median_ms(predict: Predict, image: Tensor) -> float:
    seconds = timeit.repeat(lambda: predict(image), number=1, repeat=WARM_UPS + REPEATS)
    return 1000 * statistics.median(seconds[WARM_UPS:])


def table(measurements: Sequence[Measurement]) -> Table:
    """The measurements for the terminal."""
    title = f"latency: median of {REPEATS}, batch 1, {NUM_THREADS} thread"
    grid = Table(title=title, title_justify="left", title_style="dim")
    grid.add_column("model")
    split = measurements[0].split
    for name in ("bytes", "latency", f"{split} accuracy", "agrees with torch"):
        grid.add_column(name, justify="right")
    for row in measurements:
        grid.add_row(
            row.name,
            f"{row.num_bytes:,}",
            f"{row.latency_ms:.3f} ms",
            f"{row.accuracy:.2%}",
            f"{row.num_agreeing:,} of {row.num_images:,}",
        )
    return grid

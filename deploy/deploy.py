"""Exports and quantizes a finished model, and measures the exported files."""

import statistics
import timeit
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from core.errors import ConfigError
from data.loader import Loader
from deploy.answers import Answers
from deploy.export import (
    INPUT_NAMES,
    Deployable,
    Predict,
    export_onnx,
    export_torch,
    onnx_predict,
    quantize_int8,
)
from deploy.finished_run import FinishedRun

CALIBRATION_SAMPLES = 500
NUM_THREADS = 1  # small devices have few cores, and batch 1 gains nothing from more
WARM_UPS = 20
REPEATS = 200


@dataclass(frozen=True)
class Measurement:
    """Size, latency and quality of a deployed model: one row of the table."""

    name: str
    file: Path
    num_bytes: int
    latency_ms: float  # median of REPEATS single samples
    split: str  # the split of the following measurements
    score_name: str
    score: float
    num_agreeing: int  # outputs that agree with the trained model's, see Answers.agree
    num_compared: int


def deploy(
    run: FinishedRun, answers: Answers, export: str | None, quantize: str | None, folder: Path
) -> list[Measurement]:
    """Export the model to ``folder`` and measure each file on the whole test split.

    Uses the validation split if the data have no test split.

    Args:
        export: ``onnx`` or ``torch``; None means ``onnx``.
        quantize: ``int8`` or None.

    Raises:
        ConfigError: if the data are missing, or have neither split.
    """
    torch.set_num_threads(NUM_THREADS)
    data = run.load_data()
    split = next((name for name in ("test", "val") if name in data.splits), None)
    if split is None:
        raise ConfigError(
            f"data={data.spec.name} has no test or validation split to check the exported model on"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for file in filter(Path.is_symlink, folder.iterdir()):
        file.unlink()  # an untrusted run directory could link to files elsewhere
    model = Deployable(run.model, run.spec, answers.head()).eval()
    # exporters would bake in the strides of channels_last
    model = model.to(memory_format=torch.contiguous_format)
    check = partial(measure, model=model, answers=answers, data=data, split=split)
    example = raw_inputs(data, split, 1).repeat_interleave(2, 0)
    if export == "torch":
        file = folder / "model.pt2"
        return [check("torch.export", file, export_torch(model, example, file))]
    file = folder / "model.onnx"
    export_onnx(model, example, file, INPUT_NAMES[run.spec.kind], answers.output_name)
    rows = [check("ONNX float", file, onnx_predict(file, NUM_THREADS))]
    if quantize == "int8":
        small = folder / "model_int8.onnx"
        quantize_int8(file, small, raw_inputs(data, "train", CALIBRATION_SAMPLES))
        rows.append(check("ONNX int8", small, onnx_predict(small, NUM_THREADS)))
    return rows


@torch.inference_mode()
def measure(
    name: str,
    file: Path,
    predict: Predict,
    *,
    model: Deployable,
    answers: Answers,
    data: Loader,
    split: str,
) -> Measurement:
    """Measure a deployed model on a whole split and compare it with the trained one."""
    scores: list[Tensor] = []
    agreeing: list[Tensor] = []
    indices = torch.arange(len(data.splits[split])).split(data.eval_batch_size)
    for inputs, *targets in data.read(split, indices):
        outputs = predict(inputs)
        scores.append(answers.scores(outputs, inputs, targets[-1]).flatten())
        agreeing.append(answers.agree(outputs, model(inputs)).flatten())
    agrees = torch.cat(agreeing)
    return Measurement(
        name=name,
        file=file,
        num_bytes=file.stat().st_size,
        latency_ms=median_ms(predict, raw_inputs(data, split, 1)),
        split=split,
        score_name=answers.score_name,
        score=torch.cat(scores).double().mean().item(),
        num_agreeing=int(agrees.sum()),
        num_compared=len(agrees),
    )


def raw_inputs(data: Loader, split: str, count: int) -> Tensor:
    """``count`` evenly spaced raw samples ``(N, ...)`` of a split."""
    size = len(data.splits[split])
    indices = torch.arange(min(count, size)) * size // min(count, size)
    (batch,) = data.read(split, [indices])
    return batch[0]


@torch.inference_mode()
def median_ms(predict: Predict, sample: Tensor) -> float:
    seconds = timeit.repeat(lambda: predict(sample), number=1, repeat=WARM_UPS + REPEATS)
    return 1000 * statistics.median(seconds[WARM_UPS:])


def table(measurements: Sequence[Measurement]) -> Table:
    """The measurements as a table for the terminal."""
    title = f"latency: median of {REPEATS}, batch 1, {NUM_THREADS} thread"
    grid = Table(title=title, title_justify="left", title_style="dim")
    grid.add_column("model")
    first = measurements[0]
    for name in ("bytes", "latency", f"{first.split} {first.score_name}", "agrees with torch"):
        grid.add_column(name, justify="right")
    for row in measurements:
        is_share = row.score_name.endswith("accuracy")
        grid.add_row(
            row.name,
            f"{row.num_bytes:,}",
            f"{row.latency_ms:.3f} ms",
            f"{row.score:.2%}" if is_share else f"{row.score:.4g}",
            f"{row.num_agreeing:,} of {row.num_compared:,}",
        )
    return grid

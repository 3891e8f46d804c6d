"""Export a finished classifier, quantize it, and measure what came out."""

from pathlib import Path

import torch

from core.errors import ConfigError
from deploy.export import Deployable, export_onnx, export_torch, onnx_predict
from deploy.finished_run import FinishedRun
from deploy.measure import NUM_THREADS, Measurement, classify_split, measure, raw_images
from deploy.quantize import quantize_int8

CALIBRATION_IMAGES = 500


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

"""8-bit integer models for small devices: weights and activations, by static calibration."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor


def quantize_int8(float_model: Path, int8_model: Path, images: Tensor) -> None:
    """Write an int8 version of an ONNX model.

    Every weight channel gets a scale of its own, every activation one range, measured on
    ``images`` before the model is deployed (static quantization, arXiv:1712.05877).

    Args:
        images: ``(N, C, H, W)`` uint8 training images to calibrate on.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Calibration(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(images.split(1))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.numpy()}

    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(float_model, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            int8_model,
            Calibration(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )

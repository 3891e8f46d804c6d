"""A trained classifier as one file for other programs: raw pixels in, logits out."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.images import scale_and_shift
from data.splits import ImageSpec

# uint8 images (N, C, H, W) -> logits (N, num_classes)
Predict = Callable[[Tensor], Tensor]
DYNAMIC_BATCH = ({0: torch.export.Dim("batch")},)


class Deployable(nn.Module):
    """A classifier and its preprocessing: uint8 ``(N, C, H, W)`` -> logits ``(N, num_classes)``."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, spec: ImageSpec) -> None:
        super().__init__()
        self.model = model
        self.shape = (spec.in_channels, *spec.image_size)
        scale, shift = scale_and_shift(spec.mean, spec.std)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.float() * self.scale + self.shift)

    def example(self) -> tuple[Tensor]:
        """Arguments to trace with; two images, since one would be taken for a constant."""
        return (torch.zeros(2, *self.shape, dtype=torch.uint8),)


def export_torch(model: Deployable, file: Path) -> Predict:
    """Write a ``torch.export`` program of any batch size; what it predicts, read from the file."""
    torch.export.save(
        torch.export.export(model, model.example(), dynamic_shapes=DYNAMIC_BATCH), file
    )
    return torch.export.load(file).module()


def export_onnx(model: Deployable, file: Path) -> None:
    """Write an ONNX model with one input ``images``, one output ``logits``, any batch size."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    program = torch.onnx.export(
        model,
        model.example(),
        dynamic_shapes=DYNAMIC_BATCH,
        input_names=["images"],
        output_names=["logits"],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # a fifth of a small model's file
    program.save(file, external_data=False)


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


def onnx_predict(file: Path, num_threads: int) -> Predict:
    """What an ONNX file predicts, in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def predict(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return predict

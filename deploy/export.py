"""Exports a trained model to one file: raw pixels or rows in, logits or values out."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.images import scale_and_shift
from data.tables import EncodeTable
from deploy.answers import Affine
from models.outputs import prediction_of

# raw inputs (N, ...) -> outputs (N, ...)
Predict = Callable[[Tensor], Tensor]
DYNAMIC_BATCH = (({0: torch.export.Dim("batch")},),)  # for the single argument of ``*raw``


class Deployable(nn.Module):
    """A model with preprocessing of raw inputs and postprocessing of its outputs.

    Takes raw inputs: uint8 images ``(N, C, H, W)``, rows of tables ``(N, columns)`` in the format
    of :mod:`data.tables`, or texts encoded by their spec.

    Args:
        head: postprocessing of the outputs; None: none.
    """

    def __init__(self, model: nn.Module, spec: Any, head: nn.Module | None = None) -> None:
        super().__init__()
        self.prepare = PREPARATIONS[spec.kind](spec) if spec.kind in PREPARATIONS else nn.Identity()
        self.model = model
        self.head = head or nn.Identity()

    def forward(self, *raw: Tensor) -> Tensor:
        prepared = (self.prepare(tensor) for tensor in raw)
        return self.head(prediction_of(self.model(*prepared)))


PREPARATIONS: dict[str, Callable[[Any], nn.Module]] = {
    "image": lambda spec: Affine(*scale_and_shift(spec.mean, spec.std)),
    "table": lambda spec: EncodeTable(spec.columns),
}
INPUT_NAMES = {"image": "images", "table": "rows"}  # in the exported file


@contextmanager
def without_own_warnings() -> Iterator[None]:
    """Suppress warnings about torch 2.11's exporters' own code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)")
        yield


@without_own_warnings()
def export_torch(model: Deployable, example: Tensor, file: Path) -> Predict:
    """Save a ``torch.export`` program with a dynamic batch size; returns it, loaded from the file.

    Args:
        example: raw samples to trace with, at least two: a batch size of 1 would be specialized.
    """
    program = torch.export.export(model, (example,), dynamic_shapes=DYNAMIC_BATCH)
    torch.export.save(program, file)
    return torch.export.load(file).module()


@without_own_warnings()
def export_onnx(
    model: Deployable,
    example: Tensor,
    file: Path,
    input_name: str = "images",
    output_name: str = "logits",
) -> None:
    """Save an ONNX model with a dynamic batch size; see :func:`export_torch`."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    program = torch.onnx.export(
        model,
        (example,),
        dynamic_shapes=DYNAMIC_BATCH,
        input_names=[input_name],
        output_names=[output_name],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # metadata is a fifth of a small model's file
    program.save(file, external_data=False)


def quantize_int8(float_model: Path, int8_model: Path, inputs: Tensor) -> None:
    """Save an int8 version of an ONNX model.

    Static quantization (arXiv:1712.05877): one scale per weight channel, and one range per
    activation, calibrated on ``inputs``.

    Args:
        inputs: raw training samples to calibrate on.
    """
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    (model_input,) = onnxruntime.InferenceSession(float_model).get_inputs()
    batches = ({model_input.name: batch.numpy()} for batch in inputs.split(1))

    class Calibration(CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            return next(batches, None)

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
    """Load an ONNX file into onnxruntime on the CPU; returns its prediction function."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (model_input,) = session.get_inputs()

    def predict(inputs: Tensor) -> Tensor:
        (outputs,) = session.run(None, {model_input.name: inputs.numpy()})
        return torch.from_numpy(outputs)

    return predict

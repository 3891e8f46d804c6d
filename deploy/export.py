"""A trained classifier as one file for other programs: raw pixels in, logits out."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

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
        # (x / 255 - mean) / std as one multiplication and one addition
        scale = torch.tensor([1 / (255 * std) for std in spec.std])
        shift = torch.tensor([-m / std for m, std in zip(spec.mean, spec.std, strict=True)])
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", shift.view(1, -1, 1, 1))

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

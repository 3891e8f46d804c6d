"""Finds the prediction in what a model returns."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

NAMES = ("logits", "out")  # transformers and torchvision's GoogLeNet; torchvision's segmentation


def prediction_of(output: Any) -> Any:
    """The prediction in a model's output, such as its logits.

    It is ``logits`` or ``out`` of a mapping (such as a ``ModelOutput`` of transformers) or of a
    named tuple, and the first entry of other tuples and lists, where the rest is features or a
    state. Any other output is returned unchanged.
    """
    if isinstance(output, Tensor):
        return output
    for name in NAMES:
        is_mapping = isinstance(output, Mapping)
        value = output.get(name) if is_mapping else getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    is_sequence = isinstance(output, tuple | list) and output and isinstance(output[0], Tensor)
    return output[0] if is_sequence else output


def described(output: Any) -> str:
    """A model's output in words, for messages: a tensor's shape, the contents of a container."""
    if isinstance(output, Tensor):
        return str(tuple(output.shape))
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"a {kind} of {', '.join(map(str, output)) or 'nothing'}"
    if isinstance(output, tuple | list):
        return f"a {kind} of {', '.join(type(item).__name__ for item in output) or 'nothing'}"
    return kind

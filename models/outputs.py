"""What models return: a tensor, or one among other things."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

NAMES = ("logits", "out")  # transformers and torchvision's GoogLeNet; torchvision's segmentation


def prediction_of(output: Any) -> Any:
    """The tensor that counts in what a model returned: its logits, or what else it predicts.

    Of a mapping, such as a ``ModelOutput`` of transformers, and of a named tuple it is ``logits``
    or ``out``; of any other tuple or list the first entry, which the rest, such as features or a
    state, only accompanies. What is none of these is returned as it is.
    """
    if isinstance(output, Tensor):
        return output
    for name in NAMES:
        is_mapping = isinstance(output, Mapping)
        found = output.get(name) if is_mapping else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    is_sequence = isinstance(output, tuple | list) and output and isinstance(output[0], Tensor)
    return output[0] if is_sequence else output


def described(output: Any) -> str:
    """What a model returned, for messages: a tensor's shape, the contents of what holds several."""
    if isinstance(output, Tensor):
        return str(tuple(output.shape))
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"a {kind} of {', '.join(map(str, output)) or 'nothing'}"
    if isinstance(output, tuple | list):
        return f"a {kind} of {', '.join(type(item).__name__ for item in output) or 'nothing'}"
    return kind

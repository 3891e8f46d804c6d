"""A split of texts of different length, padded to the longest of a batch and no further."""

import torch
from torch import Tensor

from data.splits import Batch, TensorSplit


class TokenSplit(TensorSplit):
    """Labelled documents: their tokens end to end in one tensor, and where each begins.

    Args:
        tokens: ``(all tokens,)``.
        starts: ``(N,)`` first token of each text.
        lengths: ``(N,)`` tokens of each text, 1 or more.
        labels: ``(N,)``.
    """

    def __init__(
        self, tokens: Tensor, starts: Tensor, lengths: Tensor, labels: Tensor, pad_token_id: int
    ) -> None:
        super().__init__(starts, lengths, labels)
        self.all_tokens = tokens
        self.pad_token_id = pad_token_id

    def to(self, device: torch.device) -> "TokenSplit":
        moved = super().to(device)
        assert isinstance(moved, TokenSplit)
        moved.all_tokens = self.all_tokens.to(device)
        return moved

    def take(self, indices: Tensor) -> "TokenSplit":
        starts, lengths, labels = super().gather(indices)
        return TokenSplit(self.all_tokens, starts, lengths, labels, self.pad_token_id)

    def text(self, index: int) -> list[int]:
        """The token ids of one text."""
        start, length = (int(tensor[index]) for tensor in self.tensors[:2])
        return self.all_tokens[start : start + length].tolist()

    def gather(self, indices: Tensor) -> Batch:
        """Tokens and mask, each ``(N, longest text)``, and labels ``(N,)``."""
        starts, lengths, labels = super().gather(indices)
        # the one value a batch must read back from the device: how wide it is
        offsets = torch.arange(int(lengths.max()), device=starts.device)
        mask = offsets < lengths[:, None]
        places = (starts[:, None] + offsets).clamp_(max=len(self.all_tokens) - 1)
        tokens = self.all_tokens[places].long().masked_fill_(~mask, self.pad_token_id)
        return tokens, mask, labels

"""A BERT-type encoder with a classification head: ``model=bert model.pretrained=FOLDER``.

Works with any encoder of ``transformers`` that returns a ``last_hidden_state``.
"""

import json
from pickle import UnpicklingError
from typing import Literal

import torch
from torch import Tensor, nn

from core.errors import ConfigError, reason
from models.pretrained import locate


class TextClassifier(nn.Module):
    """Encoder, pooling to one vector per text, dropout, linear classifier.

    Tokens ``(N, T)`` and their mask ``(N, T)``, false where padded -> ``(N, num_classes)``.

    Args:
        pooling: ``mean`` over the non-padding tokens, or ``cls``, the state of the first token.
    """

    def __init__(
        self,
        encoder: nn.Module,
        width: int,
        num_classes: int,
        pooling: Literal["mean", "cls"],
        dropout: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        states = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            pooled = states[:, 0]
        else:
            shares = mask / mask.sum(1, keepdim=True)
            pooled = (states * shares[..., None].to(states.dtype)).sum(1)
        return self.classifier(self.dropout(pooled))


def bert(
    pretrained: str | Literal[False] | None,
    architecture: str | None,
    num_classes: int,
    max_length: int,
    pooling: Literal["mean", "cls"],
    dropout: float,
) -> TextClassifier:
    """A text classifier on a pretrained or randomly initialized encoder.

    Args:
        pretrained: see :func:`models.pretrained.locate`; null or false: random weights.
        architecture: JSON config of the encoder, for random weights.
        max_length: maximum number of tokens of a text.

    Raises:
        ConfigError: if there is no such encoder, it lacks weights, or it has fewer than
            ``max_length`` positions.
    """
    from transformers import AutoConfig, AutoModel  # takes seconds to import: only when used
    from transformers.utils import logging

    logging.disable_progress_bar()  # the program has its own console
    logging.set_verbosity_error()
    if pretrained:
        source = locate(pretrained, "model.pretrained")
        try:
            encoder, info = AutoModel.from_pretrained(
                source,
                dtype=torch.float32,
                weights_only=True,
                trust_remote_code=False,  # else transformers prompts on the terminal
                output_loading_info=True,
            )
        except Exception as error:  # a damaged or missing file can raise anything
            why = reason(error)
            if isinstance(error, UnpicklingError):  # from a pytorch_model.bin
                why = "its weights are damaged, or hold more than tensors, which could run any code"
            raise ConfigError(f"model.pretrained={pretrained} cannot be loaded: {why}") from error
        if missing := sorted(key for key in info["missing_keys"] if not key.startswith("pooler.")):
            raise ConfigError(
                f"model.pretrained={pretrained} lacks {len(missing)} of the encoder's weights, "
                f"such as {missing[0]}: they would be random"
            )
    elif architecture is None:
        raise ConfigError(
            "model.pretrained=null: random weights need an architecture; set data.tokenizer to a "
            "model, or model.architecture"
        )
    else:
        values = json.loads(architecture)
        encoder = AutoModel.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
    positions = getattr(encoder.config, "max_position_embeddings", max_length)
    if max_length > positions:
        raise ConfigError(
            f"data.max_length={max_length} is more than the {positions} positions of the encoder"
        )
    encoder.pooler = None  # a layer that only pretraining used
    return TextClassifier(encoder, encoder.config.hidden_size, num_classes, pooling, dropout)

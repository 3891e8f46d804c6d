"""Language modelling: cross-entropy of the next token."""

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from core.schema import NonNegative
from data.loader import Loader
from data.splits import Batch
from data.windows import IGNORE, Lanes
from metrics.named import NamedMetrics
from models.generation import generate
from models.outputs import prediction_of
from objectives.base import Media, Objective, Sums, Text, check_fit

SampleTokens = Annotated[int, Field(ge=0)]
LINE_BREAK = "\n"
FIRST_TOKEN = 0  # prompt if the vocabulary has no line break; usually the space
SAMPLE_SEED = 0  # the same at every evaluation, so that only the model changes


class LanguageModeling(Objective):
    """Mean cross-entropy per token, in nats.

    Also records perplexity, and bits per byte of UTF-8 text, which is comparable between tokenizers
    (for a character tokenizer on ASCII it is bits per character).

    Args:
        sample_tokens: length of the text generated at every evaluation; 0 for none.
        metrics: names of additional evaluation metrics over tokens, see :mod:`metrics.named`.

    Raises:
        ConfigError: if the model does not fit the vocabulary or context length, the prompt cannot
            be encoded.
    """

    metric_modes: ClassVar = {"loss": "min", "perplexity": "min", "bits_per_byte": "min"}
    outputs = "token_logits"

    def __init__(
        self,
        model: nn.Module,
        spec: Any,
        sample_tokens: SampleTokens,
        sample_prompt: str,
        sample_temperature: NonNegative,
        metrics: Any = (),
    ) -> None:
        super().__init__(model)
        if getattr(spec, "kind", None) != "text":
            raise ConfigError(f"objective=language_modeling needs text, data={spec.name} has none")
        check_fit(
            model,
            [spec.example(2)],
            (2, spec.context_length, spec.vocab_size),
            f"model and data.context_length={spec.context_length} do not fit",
            f"model.vocab_size and data={spec.name} do not fit",
        )
        self.metrics = NamedMetrics(
            metrics,
            self.task,
            sizes={"num_classes": spec.vocab_size},
            example=(torch.full((2, spec.vocab_size), 1 / spec.vocab_size), torch.arange(2)),
            measured=tuple(self.metric_modes),
        )
        self.spec = spec
        self.sample_tokens = sample_tokens
        self.sample_temperature = sample_temperature
        self.prompt = encoded_prompt(spec, sample_prompt) if sample_tokens else []
        token_bytes = torch.tensor(spec.tokenizer.token_bytes(), dtype=torch.float32)
        self.token_bytes = token_bytes.to(next(model.parameters()).device)

    def setup(self, data: Loader) -> None:
        """Raise ConfigError if ``data.lanes`` is set, which only recurrent state needs."""
        if isinstance(data.splits["train"], Lanes):
            raise ConfigError("data.lanes is for objective=truncated_backpropagation: leave it out")

    def forward(self, phase: str, batch: Batch) -> tuple[Tensor, Sums]:
        inputs, targets = batch
        return self.training_loss(prediction_of(self.model(inputs)), targets)

    def training_loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Sums]:
        loss = cross_entropy(logits, targets)
        return loss, {"loss": (loss.detach() * targets.numel(), targets.numel())}

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
        inputs, targets = batch
        logits = prediction_of(model(inputs))
        self.update_metrics(logits, targets)
        return self.sums(cross_entropy(logits, targets, reduction="sum"), targets), {}

    def update_metrics(self, logits: Tensor, targets: Tensor) -> None:
        """Update the named metrics, without ignored tokens."""
        if self.metrics.names:
            counted = targets != IGNORE
            self.metrics.update(logits[counted].float().softmax(1), targets[counted])

    def sums(self, loss: Tensor, targets: Tensor) -> Sums:
        """Metrics of the ``targets`` that are not ignored; ``loss`` is their sum."""
        counted = targets[targets != IGNORE]
        return {
            "loss": (loss, len(counted)),
            "bytes_per_token": (self.token_bytes[counted].sum(), len(counted)),
        }

    def derived(self, metrics: dict[str, float]) -> dict[str, float]:
        bits = metrics["loss"] / math.log(2)
        return {
            "perplexity": 2.0**bits if bits < 1000 else math.inf,
            "bits_per_byte": bits / metrics["bytes_per_token"],
        }

    def preview(self, model: nn.Module, folder: Path) -> Media:
        """Text generated from the prompt."""
        if not self.sample_tokens:
            return {}
        device = self.token_bytes.device
        prompt = torch.tensor([self.prompt], device=device)
        generator = torch.Generator(device).manual_seed(SAMPLE_SEED)
        tokens = generate(
            model,
            prompt,
            self.sample_tokens,
            self.sample_temperature,
            generator=generator,
            context_length=self.spec.context_length,
        )
        return {"sample": Text(self.spec.decode(tokens[0].tolist()))}


def encoded_prompt(spec: Any, prompt: str) -> list[int]:
    """Encode ``prompt``; raises ConfigError if it is empty or has unknown characters."""
    if not prompt:
        raise ConfigError("objective.sample_prompt is empty: a text needs a token to start from")
    try:
        return spec.encode(prompt)
    except ConfigError as error:
        if prompt == LINE_BREAK:  # the default, in a vocabulary without it
            return [FIRST_TOKEN]
        raise ConfigError(f"objective.sample_prompt: {error}") from error


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of logits ``(N, T, vocab_size)`` against targets ``(N, T)``."""
    return F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction=reduction
    )

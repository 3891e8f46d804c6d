"""Optimizers that evaluate the loss again, or differentiate gradients, in the training loop."""

import pytest
import torch

from core.errors import ConfigError
from tests.trainer.interrupting import checkpoint_of, events

SHORT = ("trainer.max_steps=4", "trainer.eval_every_steps=2", "trainer.log_every_steps=1")


def records(run_dir):
    return [event for event in events(run_dir) if "media" not in event]


def weights(run_dir):
    return checkpoint_of(run_dir)["model"]


@pytest.mark.usefixtures("few_digits")
def test_sam_with_zero_radius_equals_sgd(train):
    """A closure sees the same samples, dropout masks and clipping as a plain step."""
    settings = (*SHORT, "model.dropout=0.5", "trainer.clip_grad_norm=0.5")
    settings += ("trainer.accumulate_steps=2", "trainer.precision=fp32")
    sgd = train("optim=sgd_cosine", "optimizer.fused=false", *settings)
    sam = train("optim=sam_cosine", "optimizer.rho=0.0", *settings)
    torch.testing.assert_close(weights(sam), weights(sgd), rtol=0, atol=0)
    for own, other in zip(records(sam), records(sgd), strict=True):
        assert own == pytest.approx(other, rel=1e-6)
    perturbed = train("optim=sam_cosine", "optimizer.rho=0.1", *settings)
    assert not torch.equal(
        weights(perturbed)["classifier.weight"], weights(sgd)["classifier.weight"]
    )


SAM, SOPHIA = "optim=sam_cosine", "optim=sophia_warmup_cosine"


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((SAM, "trainer.precision=fp16"), "needs trainer.precision=fp32 or bf16"),
        ((SOPHIA, "trainer.precision=fp16"), "needs trainer.precision=fp32 or bf16"),
        ((SAM, "trainer.on_nonfinite=skip"), "needs trainer.on_nonfinite=raise or stop"),
        (
            ("data=python_docs", "model=lstm", "objective=truncated_backpropagation", SAM),
            r"needs an objective without state between updates \(carried",
        ),
    ],
)
def test_unsupported_settings_are_rejected(train, overrides, message):
    reason = "(SAM evaluates the loss again|SophiaH differentiates gradients)"
    with pytest.raises(ConfigError, match=f"optimizer: {reason}, which {message}"):
        train(*overrides, *SHORT)

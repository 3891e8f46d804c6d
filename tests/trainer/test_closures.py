"""Optimizers that evaluate the loss again, or differentiate its gradient, in the training loop."""

import json

import pytest
import torch

from core.errors import ConfigError

FEW = ("trainer.max_steps=4", "trainer.eval_every_steps=2", "trainer.log_every_steps=1")


def records(run_dir):
    """Of training and evaluation, without their times."""
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line | {"seconds": 0.0} for line in lines if "media" not in line]


def weights(run_dir):
    content = torch.load(run_dir / "checkpoints" / "last.pt", weights_only=True)
    return content["model"]


@pytest.mark.usefixtures("few_digits")
def test_a_closure_sees_the_same_samples_and_draws(train):
    """SAM without a radius is SGD: dropout, batch norms, clipping, records and all."""
    settings = (*FEW, "model.dropout=0.5", "trainer.clip_grad_norm=0.5")
    settings += ("trainer.accumulate_steps=2", "trainer.precision=fp32")
    sgd = train("optim=sgd_cosine", "optimizer.fused=false", *settings)
    sam = train("optim=sam_cosine", "optimizer.rho=0.0", *settings)
    torch.testing.assert_close(weights(sam), weights(sgd), rtol=0, atol=0)
    for own, other in zip(records(sam), records(sgd), strict=True):
        assert own == pytest.approx(other, rel=1e-6)
    wider = train("optim=sam_cosine", "optimizer.rho=0.1", *settings)
    assert not torch.equal(weights(wider)["classifier.weight"], weights(sgd)["classifier.weight"])


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(
    "optimizer",
    [
        ("optim=lbfgs_constant", "optimizer.max_iter=2"),
        ("optim=sam_cosine",),
        ("optim=sophia_warmup_cosine", "optimizer.update_period=2"),
    ],
    ids=["lbfgs", "sam", "sophia"],
)
def test_resuming_changes_nothing(train, optimizer):
    whole = train(*optimizer, *FEW)
    part = train(*optimizer, *FEW, "trainer.limit_train_steps=2")
    train(*optimizer, *FEW, "resume=auto", run_dir=part)
    torch.testing.assert_close(weights(part), weights(whole), rtol=0, atol=0)
    assert records(part) == records(whole)


SAM, SOPHIA = "optim=sam_cosine", "optim=sophia_warmup_cosine"


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(
    ("overrides", "cause"),
    [
        ((SAM, "trainer.precision=fp16"), "needs trainer.precision=fp32 or bf16"),
        ((SOPHIA, "trainer.precision=fp16"), "needs trainer.precision=fp32 or bf16"),
        ((SAM, "trainer.on_nonfinite=skip"), "needs trainer.on_nonfinite=raise or stop"),
        (
            ("data=python_docs", "model=lstm", "objective=truncated_backpropagation", SAM),
            "needs an objective without carried",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(train, overrides, cause):
    with pytest.raises(ConfigError, match=rf"optimizer: (SAM|SophiaH) .* again, which {cause}"):
        train(*overrides, *FEW)

"""The training loop reads values back to the host only at logging steps."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.finite import all_finite
from trainer.trainer import Trainer

READS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero"}


class Reads(TorchDispatchMode):
    """Counts the operations that return a tensor's value to Python."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.__name__.partition(".")[0] in READS
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("trainer.clip_grad_norm=1", "trainer.ema_decay=0.9", "trainer.accumulate_steps=2",
         "trainer.monitor_layers=true",
         "optim=adamw_warmup_cosine"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_on_gpu", [True, False])
def test_no_value_is_read_between_logging_steps(
    train, few_digits, monkeypatch, settings, as_on_gpu
):
    reads = Counter()
    step, after_step = Trainer.train_step, Trainer.after_step

    def counted(function):
        def call(trainer, *args):
            trainer.finite = replace(trainer.finite, reads_are_free=not as_on_gpu)
            with Reads() as mode:
                function(trainer, *args)
            reads[trainer.progress.step] += mode.count

        return call

    monkeypatch.setattr(Trainer, "train_step", counted(step))
    monkeypatch.setattr(Trainer, "after_step", counted(after_step))
    train(
        "data.batch_size=20",
        "trainer.max_steps=6",
        "trainer.log_every_steps=4",
        "trainer.eval_every_steps=6",
        "trainer.test=false",
        "trainer.precision=bf16",
        *settings,
    )
    between = {number: count for number, count in reads.items() if number not in (1, 4, 6)}
    assert set(between) == {2, 3, 5}
    assert set(between.values()) == {0} if as_on_gpu else min(between.values()) > 0


def test_all_finite_reads_once():
    tensors = [torch.zeros(2), torch.zeros(3), torch.zeros(1, dtype=torch.long)]
    with Reads() as reads:
        assert all_finite(tensors)
    assert reads.count == 1
    tensors[1][2] = float("inf")
    assert not all_finite(tensors)
    assert all_finite([])

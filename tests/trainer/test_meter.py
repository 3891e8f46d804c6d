"""``Meter``: means of metrics, summed up on the device and read when logged."""

import pytest
import torch
from torch import nn

from trainer import metrics
from trainer.metrics import Meter


def batch_sums():
    generator = torch.Generator().manual_seed(0)
    return [{"loss": (torch.rand((), generator=generator), 3), "hits": (torch.tensor(i), 3)}
            for i in range(20)]  # fmt: skip


def test_means_are_over_all_samples():
    meter = Meter()
    for sums in batch_sums():
        meter.add(sums)
    total = sum(float(sums["loss"][0]) for sums in batch_sums())
    assert meter.means() == {"loss": total / 60, "hits": sum(range(20)) / 60}
    assert meter.means()["loss"] == total / 60  # reading changes nothing
    meter.reset()
    assert meter.means() == {}


def test_values_are_copied_when_added():
    scale = nn.Parameter(torch.ones(()))
    meter = Meter()
    for _ in range(3):
        meter.add({"scale": (scale.detach(), 1)})
        with torch.no_grad():
            scale += 1
    assert meter.means() == {"scale": 2.0}


@pytest.mark.parametrize("split", [0, 7, 20])
def test_restored_state_gives_bit_identical_means(split):
    expected, before, after = Meter(), Meter(), Meter()
    for sums in batch_sums():
        expected.add(sums)
    for sums in batch_sums()[:split]:
        before.add(sums)
    after.load_state([before.state()])
    for sums in batch_sums()[split:]:
        after.add(sums)
    assert after.means() == expected.means()


def test_large_sums_are_exact():
    """2**24 + 1 is not representable in float32."""
    meter = Meter()
    meter.add({"tokens": (torch.tensor(2.0**24), 1)})
    meter.add({"tokens": (torch.tensor(1.0), 1)})
    assert meter.means() == {"tokens": (2**24 + 1) / 2}


def test_sums_are_detached():
    """An objective that forgets ``detach`` must not keep the graphs of all updates alive."""
    meter = Meter()
    for _ in range(2):
        meter.add({"loss": (torch.ones((), requires_grad=True) * 3, 2)})
        assert not meter.sums["loss"].requires_grad
    assert meter.means() == {"loss": 1.5}


def test_restored_sums_take_the_type_of_the_device(monkeypatch):
    """As on Apple's GPUs, which do not support float64."""
    meter = Meter()
    meter.load_state([{"loss": (1.0, 1)}])
    monkeypatch.setattr(metrics, "double_dtype", lambda device: torch.float32)
    meter.add({"loss": (torch.tensor(2.0), 1)})
    assert meter.sums["loss"].dtype == torch.float32
    assert meter.means() == {"loss": 1.5}

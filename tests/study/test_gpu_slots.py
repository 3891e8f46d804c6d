"""A sweep with joblib on a machine with GPUs, as far as a machine without one can tell."""

import os
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf

from study.gpu_slots import SLOTS, gpu_slots, offer, take_gpu
from tests.conftest import ROOT

TAKE = (
    "from study.gpu_slots import take_gpu; import os; take_gpu();"
    "print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); take_gpu();"
)


@pytest.fixture
def slots(monkeypatch):
    def slots_of(count, visible=None, jobs_per_gpu=1, devices=1, accelerator="auto"):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        trainer = OmegaConf.create({"devices": devices, "accelerator": accelerator})
        return gpu_slots(trainer, jobs_per_gpu)

    return slots_of


def test_every_gpu_has_a_job_before_any_has_two(slots):
    assert slots(0) == []
    assert slots(3) == ["0", "1", "2"]
    assert slots(2, jobs_per_gpu=2) == ["0", "1", "0", "1"]
    assert slots(2, visible="5,GPU-ab") == ["5", "GPU-ab"]
    assert slots(5, devices=2) == ["0,1", "2,3"]
    assert slots(2, devices=4) == [], "the job says that there are too few"
    assert slots(2, accelerator="cpu") == []


def test_workers_take_different_gpus_and_give_them_back(tmp_path, monkeypatch):
    monkeypatch.setenv(SLOTS, "")  # so that it is taken away again
    offer(["0", "1"], str(tmp_path))

    def start(then=""):
        return subprocess.Popen(
            [sys.executable, "-c", TAKE + then],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    with start("input()") as first:
        assert first.stdout.readline() == "0\n"
        with start() as second:
            assert second.stdout.read() == "1\n"
        with start() as third:
            assert third.stdout.read() == "1\n", "the second has ended"
        first.communicate("\n")
    with start() as fourth:
        assert fourth.stdout.read() == "0\n"


def test_without_slots_nothing_is_hidden(monkeypatch):
    for name in (SLOTS, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    take_gpu()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ

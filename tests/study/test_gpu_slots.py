"""Assignment of GPUs to the concurrent jobs of a sweep, on a simulated number of GPUs."""

import os
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf

from study.gpu_slots import SLOTS, gpu_slots, offer, take_gpu
from tests.conftest import ROOT

TAKE_GPU_SCRIPT = (
    "from study.gpu_slots import take_gpu; import os; take_gpu();"
    "print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); take_gpu();"
)


@pytest.fixture
def slots(monkeypatch):
    """Return a function that computes the slots of a machine with ``count`` simulated GPUs."""

    def slots_for(count, visible=None, jobs_per_gpu=1, devices=1, accelerator="auto"):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        trainer = OmegaConf.create({"devices": devices, "accelerator": accelerator})
        return gpu_slots(trainer, jobs_per_gpu)

    return slots_for


def test_slots_use_every_gpu_before_sharing_any(slots):
    assert slots(0) == []
    assert slots(3) == ["0", "1", "2"]
    assert slots(2, jobs_per_gpu=2) == ["0", "1", "0", "1"]
    assert slots(2, visible="5,GPU-ab") == ["5", "GPU-ab"]
    assert slots(5, devices=2) == ["0,1", "2,3"]
    assert slots(2, devices=4) == [], "the job itself reports that there are too few GPUs"
    assert slots(2, accelerator="cpu") == []


def test_workers_take_free_gpus_and_release_them_on_exit(tmp_path, monkeypatch):
    monkeypatch.setenv(SLOTS, "")  # so that monkeypatch undoes what offer() sets
    offer(["0", "1"], str(tmp_path))

    def start_worker(code=""):
        return subprocess.Popen(
            [sys.executable, "-c", TAKE_GPU_SCRIPT + code],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    with start_worker("input()") as first:
        assert first.stdout.readline() == "0\n"
        with start_worker() as second:
            assert second.stdout.read() == "1\n"
        with start_worker() as third:
            assert third.stdout.read() == "1\n", "the second worker has released its GPU"
        first.communicate("\n")
    with start_worker() as fourth:
        assert fourth.stdout.read() == "0\n"


def test_without_slots_all_gpus_stay_visible(monkeypatch):
    for name in (SLOTS, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    take_gpu()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ

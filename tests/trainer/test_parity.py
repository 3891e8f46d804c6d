"""Several processes train like one process at the same global batch size.

They are compared twice: in double precision with LightCNN and CustomCNN as users train them, within
1e-9 (measured on two processes: 1e-13), and in single precision with a smooth network, within 1e-5
(measured: 6e-7). Recorded means are in single precision.

LightCNN is not compared in single precision, where no implementation would pass: the gradient jumps
where the input of a ReLU is zero up to rounding, or two inputs of a max-pooling are equal. On
digits, the weights after 20 updates differ by up to 1.6e-1 (SGD, learning rate 0.1). A bias before
a batch norm is excluded as well: it has no effect, so its gradient is rounding error, which AdamW
normalizes to full size.
"""

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import nn

from core.collectives import full_tensor
from core.errors import ConfigError
from core.job import Job
from core.ranks import ranks_of_this_process
from core.schema import check_settings
from optim.build import build_optimizer
from optim.needs import rehearse
from tests.trainer.interrupting import checkpoint_of, events, summary
from trainer.distributed.elastic import launch_workers
from trainer.distributed.parallel import for_strategy
from trainer.phase import Phase

TOLERANCE, SINGLE_TOLERANCE = 1e-9, 1e-5
COMMON = (
    "wandb.mode=disabled",
    "trainer.progress=false",
    "trainer.precision=fp32",
    "trainer.num_threads=1",
    "trainer.limit_train_steps=20",
    "trainer.log_every_steps=1",
    "trainer.eval_every_steps=20",
    "trainer.eval_train_samples=37",
    "data.batch_size=16",
    "data=synthetic_images",
    "data.num_train=160",
    "data.num_val=51",
    "data.num_test=51",
)
ACCUMULATION = ("trainer.accumulate_steps=2", "trainer.clip_grad_norm=0.5")
METRICS = "objective.metrics=[f1,top5,ece,auroc]"
CUSTOMCNN = ("model=customcnn", "data.image_size=16")
SWA = ("trainer.average=swa", "trainer.swa_start=0.2", "trainer.swa_every_steps=3")
CASES = {
    "batchnorm_sgd": ("model=lightcnn", "optim=sgd_cosine", *ACCUMULATION, "trainer.ema_decay=0.9"),
    "batchnorm_adamw": ("model=lightcnn", "optim=adamw_warmup_cosine", *SWA),
    "plain_sgd": (*CUSTOMCNN, "optim=sgd_cosine", "trainer.clip_grad_value=0.1"),
    "plain_adamw": (*CUSTOMCNN, "optim=adamw_warmup_cosine", *ACCUMULATION, METRICS),
    "batchnorm_sam": ("model=lightcnn", "optim=sam_cosine", *ACCUMULATION),
    "plain_shampoo": (*CUSTOMCNN, "optim=shampoo_warmup_cosine"),  # draws random numbers
    "fsdp": ("model=lightcnn", "optim=adamw_warmup_cosine", *ACCUMULATION),
    "fp32_batchnorm_sgd": ("optim=sgd_cosine", *ACCUMULATION, "trainer.ema_decay=0.9"),
    "fp32_batchnorm_adamw": ("optim=adamw_warmup_cosine", "trainer.ema_decay=0.9"),
    "fp32_plain_sgd": ("optim=sgd_cosine", "trainer.clip_grad_value=0.1"),
    "fp32_plain_adamw": ("optim=adamw_warmup_cosine", *ACCUMULATION),
}


def run_cases(configs, job):
    """Run every config in its own directory, on one process or as one of several."""
    from train import run

    before = torch.get_default_dtype()
    try:
        for name, config in configs.items():
            torch.set_default_dtype(torch.float32 if name.startswith("fp32") else torch.float64)
            folder = job.path / name
            folder.mkdir(exist_ok=True)
            with recorded_gradients() as gradients, smooth_model(name):
                run(config, replace(job, run_dir=str(folder)))
            if ranks_of_this_process().is_main:
                torch.save(gradients, folder / "gradients.pt")
    finally:
        torch.set_default_dtype(before)
    return 0.0


def smooth_model(name):
    """Replace the model of fp32 cases by a small network with a continuous gradient."""
    if not name.startswith("fp32"):
        return nullcontext()
    torch.manual_seed(0)
    has_batchnorm = "batchnorm" in name
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=not has_batchnorm),
        nn.BatchNorm2d(8) if has_batchnorm else nn.Identity(),
        nn.SiLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=not has_batchnorm),
        nn.BatchNorm2d(16) if has_batchnorm else nn.Identity(),
        nn.SiLU(),
        nn.AvgPool2d(7),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    return patch("trainer.build.build_model", lambda *_: model)


@contextmanager
def recorded_gradients():
    """Record the gradients of each update before clipping, averaged over all processes."""
    recorded, clip_gradients = [], Phase.clip_gradients

    def record_and_clip(phase, *args, **kwargs):
        recorded.append([full_tensor(p.grad).clone() for p in phase.parameters])
        return clip_gradients(phase, *args, **kwargs)

    with patch.object(Phase, "clip_gradients", record_and_clip):
        yield recorded


@pytest.fixture(scope="module")
def configs(composed):
    return {name: composed(*COMMON, *overrides) for name, overrides in CASES.items()}


@pytest.fixture(scope="module")
def reference(configs, tmp_path_factory):
    """A folder with the run directories of one process."""
    folder = tmp_path_factory.mktemp("one")
    run_cases(configs, Job(run_dir=str(folder)))
    return folder


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_equal_one(configs, reference, tmp_path, count):
    several = {}
    for name, config in configs.items():
        strategy = "fsdp" if name == "fsdp" else "ddp"
        changes = {"devices": count, "strategy": strategy, "max_restarts": 0}
        several[name] = {**config, "trainer": {**config["trainer"], **changes}}
    settings = check_settings(several["fsdp"])
    run = (run_cases.__module__, run_cases.__name__)
    launch_workers(settings, count, run, several, Job(run_dir=str(tmp_path)))
    for name in CASES:
        compare(tmp_path / name, reference / name)
    logs = sorted(file.name for file in (tmp_path / "fsdp").glob("rank_*.log"))
    assert logs == [f"rank_{rank}.log" for rank in range(1, count)]


def compare(several: Path, one: Path) -> None:
    """Assert that checkpoints, gradients, records and the order of the samples are equal."""
    tolerance = SINGLE_TOLERANCE if one.name.startswith("fp32") else TOLERANCE
    left, right = (checkpoint_of(folder) for folder in (several, one))
    for key in ("model", "ema"):
        torch.testing.assert_close(left[key], right[key], rtol=0, atol=tolerance, msg=key)
    states = [content["optimizers"]["train"]["state"] for content in (left, right)]
    assert states[0]
    torch.testing.assert_close(*states, rtol=0, atol=tolerance, msg="optimizer state")
    gradients = [torch.load(folder / "gradients.pt") for folder in (several, one)]
    assert len(gradients[0]) >= 20
    torch.testing.assert_close(*gradients, rtol=0, atol=tolerance, msg="gradients")
    records = [read_metrics(folder) for folder in (several, one)]
    assert len(records[0]) == len(records[1]) >= 20
    for own, other in zip(*records, strict=True):
        assert own == pytest.approx(other, rel=0, abs=SINGLE_TOLERANCE), several.name
    summaries = [summary(folder) for folder in (several, one)]
    same = ("model", "initial_weights_hash", "data_order_hash", "num_parameters", "test/accuracy")
    for key in same:
        assert summaries[0][key] == summaries[1][key], key
    assert summaries[0]["world_size"] > summaries[1]["world_size"] == 1


def read_metrics(folder: Path) -> list[dict]:
    return [
        {name: value for name, value in event.items() if name != "media"}
        for event in events(folder)
    ]


def test_fsdp_disables_fused_sgd(composed):
    """The fused kernel does not support sharded parameters."""
    overrides = ("trainer=ddp", "trainer.devices=2", "trainer.strategy=fsdp", "optim=sgd_cosine")
    config = composed(*overrides)
    adjusted = for_strategy(config["optimizer"], check_settings(config))
    assert (adjusted["fused"], adjusted["foreach"]) == (False, True)


@pytest.mark.usefixtures("_single_process_group")
def test_fsdp_rejects_optimizers_that_need_full_tensors():
    """They are detected by a trial step on sharded parameters, not by name."""
    from trainer.distributed.fsdp import shard

    model = nn.Linear(4, 4)
    shard(model)
    for name, is_rejected in (("AdamW", False), ("SOAP", True)):
        settings = {
            "_target_": "optim.pytorch_optimizer.pytorch_optimizer",
            "name": name,
            "lr": 0.1,
        }
        grouping = {"decay_norms_and_biases": True, "layer_decay": None}
        optimizer = build_optimizer(settings, model, grouping)
        expectation = pytest.raises(
            ConfigError, match=f"optimizer: {name} needs unsharded parameters"
        )
        with expectation if is_rejected else nullcontext():
            rehearse(settings, optimizer, "optimizer", model)

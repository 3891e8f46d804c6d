"""Tasks other than classification: bit-identical resume, and two processes equal to one."""

import pytest
import torch

from core.job import Job
from core.schema import check_settings
from tests.trainer.interrupting import SHORT, checkpoint_of
from tests.trainer.test_parity import read_metrics, run_cases
from trainer.distributed.elastic import launch_workers

SMALL = ("data.num_train=200", "data.num_val=30", "data.num_test=30")
TASKS = {
    "regression": ("model=mlp", "data=diabetes", "model.dropout=0.1"),
    "segmentation": ("model=segmentation_unet", "model.widths=[4,8]", *SMALL),
    "vae": ("model=vae", "model.width=4", "data.limit_train_samples=200"),
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """``TASKS``, and multi-label classification of a CSV file."""
    values = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    rows = [[*row, int(row[0] > 0.5), int(row[1] > 0)] for row in values.tolist()]
    file = tmp_path_factory.mktemp("table") / "labels.csv"
    lines = ["a,b,c,high,positive", *(",".join(map(str, row)) for row in rows)]
    file.write_text("\n".join(lines))
    table = ("data.target=[high,positive]", "data.target_type=labels", f"data.path={file}")
    multilabel = ("model=mlp", "data=table_csv", "objective=multilabel", *table)
    return {**TASKS, "multilabel": multilabel}


@pytest.mark.parametrize("name", [*TASKS, "multilabel"])
def test_resume_is_bit_identical(name, tasks, check_resume):
    check_resume((6,), *tasks[name], *SHORT, "trainer.limit_eval_steps=1", "trainer.ema_decay=0.9")


@pytest.mark.slow
def test_two_processes_equal_one(tasks, composed, data_root, tmp_path):
    """In double precision, within 1e-7; without dropout, which each process draws for itself.

    AdamW divides gradients that are zero up to rounding by its eps of 1e-8, which turns 1e-17 into
    a difference of 1e-9 or more per update: 3e-9 after 20 (multi-label, a CPU with AVX2).

    No task here trains ReLU and max-pooling on digits with black background: see
    ``test_parity.py``.
    """
    common = (
        f"data.root={data_root}",
        "wandb.mode=disabled",
        "trainer.progress=false",
        "trainer.precision=fp32",
        "trainer.num_threads=1",
        "trainer.limit_train_steps=20",
        "trainer.log_every_steps=1",
        "trainer.eval_every_steps=10",
        "trainer.ema_decay=0.9",
        "trainer.accumulate_steps=2",
        "data.batch_size=16",
        "data.eval_batch_size=11",
    )
    configs = {name: composed(*overrides, *common) for name, overrides in tasks.items()}
    configs["regression"]["model"]["dropout"] = 0.0
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    run_cases(configs, Job(run_dir=str(folders[0])))
    for config in configs.values():
        config["trainer"] |= {"devices": 2, "max_restarts": 0}
    run = (run_cases.__module__, run_cases.__name__)
    settings = check_settings(configs["vae"])
    launch_workers(settings, 2, run, configs, Job(run_dir=str(folders[1])))
    for name in tasks:
        states = [checkpoint_of(folder / name) for folder in folders]
        for key in ("model", "ema"):
            one, two = (state[key] for state in states)
            torch.testing.assert_close(one, two, rtol=0, atol=1e-7, msg=f"{name}: {key}")
        records = [read_metrics(folder / name) for folder in folders]
        assert len(records[0]) == len(records[1]) >= 20
        for own, other in zip(*records, strict=True):
            # a class that does not occur has no IoU
            one, two = ({k: v for k, v in e.items() if v is not None} for e in (own, other))
            assert one == pytest.approx(two, rel=1e-6, abs=1e-6), name

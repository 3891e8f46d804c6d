"""Nonsense on the command line ends in one clear line, never in a traceback."""

import random
import sys

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

import train
from core.command_line import command_line
from study.sweep import Sweep
from tests.conftest import QUIET, ROOT

# as the script has it: an imported module would look for conf/ as a package
main = hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")(
    train.main.__wrapped__
)

NAMES = """
    model optim optimizer scheduler data objective debug model.dropout model.num_classes
    model._target_ optimizer.lr optimizer.betas optimizer.momentum optimizer._target_
    scheduler.eta_min scheduler.warmup_fraction scheduler.warmup_steps scheduler._target_
    data.batch_size data.mean data.std data.augment data.num_workers data.root data._target_
    data.eval_batch_size objective.label_smoothing objective.mixup_alpha trainer.precision
    trainer.clip_grad_norm trainer.accumulate_steps trainer.ema_decay trainer.log_every_steps
    trainer.eval_every_steps trainer.on_nonfinite trainer.target trainer.accelerator
    trainer.early_stopping_patience trainer.checkpoint_every_seconds seed resume resume_changes
    monitor monitor_mode phases phases.train wandb.tags param_groups.decay_norms_and_biases
    hydra.run.dir hydra.job.num hydra.callbacks.sweep hydra.mode hydra.output_subdir nonsense
    a.b.c
"""
KEYS = NAMES.split()
VALUES = [
    "",
    "null",
    "-1",
    "0",
    "1",
    "2.5",
    "1e309",
    "nan",
    "inf",
    "true",
    "abc",
    "[1,2",
    "[1,2]",
    "[]",
    "{}",
    "{a:1}",
    "{_target_:os.system}",
    "${seed}",
    "${nowhere}",
    "${oc.env:NOWHERE}",
    "???",
    "'",
    '"',
    "é",
    "a=b",
    "a,b",
    "/proc/nonexistent",
    "/dev/null",
    ".",
    "os.system",
    "torch.nn.ReLU",
    "data.mnist5k.mnist5k",
    "optim.schedules.cosine",
    "sgd",
    "lightcnn",
    "cosine",
    "auto",
    "\\",
    "@",
    "  ",
    "-",
]
PREFIXES = ("", "", "", "", "+", "~", "++", "-", "--", "@", "/")


def nonsense(draw: random.Random) -> list[str]:
    words = []
    for _ in range(draw.randint(1, 3)):
        key = draw.choice(KEYS)
        if draw.random() < 0.2:
            position = draw.randrange(len(key))
            key = key[:position] + draw.choice("x._/ ") + key[position + 1 :]
        words.append(draw.choice(PREFIXES) + key + draw.choice(("=", "=", "=", "", " ", "==")))
        words[-1] += draw.choice(VALUES)
    return words


def check(words, data_root, tmp_path, monkeypatch, capsys):
    few = ("debug=fast", "trainer.limit_train_steps=1", "trainer.limit_eval_steps=1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    place = (f"data.root={data_root}", f"hydra.run.dir={tmp_path}/run")
    monkeypatch.setattr(sys, "argv", ["train.py", *QUIET, *place, *few, *words])
    GlobalHydra.instance().clear()
    try:
        code = command_line(main, Sweep.finish)
    except SystemExit as usage:  # argparse's own
        code = usage.code
    output = capsys.readouterr()
    assert code in (0, 1, 2), words
    assert "Traceback" not in output.err, words
    errors = [line for line in output.err.splitlines() if "error: " in line]
    assert len(errors) == (code != 0), (words, output.err)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.usefixtures("few_digits")
def test_nonsense(seed, data_root, tmp_path, monkeypatch, capsys):
    check(nonsense(random.Random(seed)), data_root, tmp_path, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 500))
@pytest.mark.usefixtures("few_digits")
def test_more_nonsense(seed, data_root, tmp_path, monkeypatch, capsys):
    check(nonsense(random.Random(seed)), data_root, tmp_path, monkeypatch, capsys)

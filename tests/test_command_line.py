"""The commands, as a user types them."""

import json
import os
import re
import subprocess
import sys

import pytest
from hydra.errors import ConfigCompositionException

from core.command_line import explain
from tests.conftest import ROOT

MAIN = ("train.py", "debug=fast", "wandb.mode=disabled")


def summaries(folder):
    return {file.parent.name: json.loads(file.read_text()) for file in folder.rglob("summary.json")}


def test_sweep_survives_a_failing_job(command_here, data_root, tmp_path):
    """The failing one of four jobs is reported at once, the others run, and the exit code is 1."""
    done = command_here(
        "train.py", "-m", "debug=fast", "wandb.mode=offline", f"data.root={data_root}",
        "optim=sgd_cosine,adam_constant", "model.num_classes=10,7", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert done.returncode == 1
    found = summaries(tmp_path / "sweep")
    assert [found[str(n)]["status"] for n in range(4)] == ["completed", "failed"] * 2
    assert found["0"]["wandb"]["group"] == found["2"]["wandb"]["group"] == "sweep"
    assert found["0"]["wandb"]["id"] != found["2"]["wandb"]["id"]
    assert len(list((tmp_path / "sweep").glob("*/wandb/offline-run-*/*.wandb"))) == 2
    (line, _) = re.findall(r"error: model\.num_classes and data=mnist5k do not fit.*", done.stderr)
    assert done.stderr.count("Traceback") == 0
    table = done.stdout[done.stdout.index("sweep directory") - 3000 :]
    assert table.count("completed") == 2
    assert line.split()[-1] in done.stderr


def test_help_and_config(command_here):
    shown = command_here("train.py", "--help")
    assert shown.returncode == 0
    assert re.search(r"^optim: [^:]*\bsgd_cosine\b", shown.stdout, re.MULTILINE)
    assert re.search(r"^model: [^:]*\blightcnn\b", shown.stdout, re.MULTILINE)
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert not re.search(r"\s_\w+", shown.stdout)  # files shared by several options
    config = command_here("train.py", "--cfg", "job", "optim=adamw_warmup_cosine")
    assert config.returncode == 0
    assert "torch.optim.AdamW" in config.stdout


def test_flags_may_follow_overrides(command_here, data_root, tmp_path):
    sweep = ("-m", f"data.root={data_root}", "seed=3,4", "hydra.sweep.dir=sweep")
    done = command_here(*MAIN, *sweep)
    assert done.returncode == 0, done.stderr
    seeds = {name: summary["seed"] for name, summary in summaries(tmp_path / "sweep").items()}
    assert seeds == {"0": 3, "1": 4}


MISTAKES = {
    "optimizer.lrr=1": "error: unknown setting optimizer.lrr: did you mean optimizer.lr?\n",
    "scheduler.warmup_steps=9": (
        "error: unknown setting scheduler.warmup_steps: if optim.schedules.cosine takes it, add a "
        "plus: +scheduler.warmup_steps=...\n"
    ),
    "experiment=shakespeare_char data.path=x trainer.max_epochs=1": (
        "trainer.max_epochs has no effect with trainer.max_steps=2000: add trainer.max_steps=null"
    ),
    "study=sgd_or_adamw hydra.sweeper.trails=3": "did you mean hydra.sweeper.trials?",
    "study=sgd_or_adamw hydra.sweeper.candidates.sgd.space.optimizer.lr.low=1": "in braces, as in",
    "optimizer.lr=1e-3,1e-2": "To sweep over it, add --multirun to your command line",
    "optim=sgd_cosin": "optim=sgd_cosin: no such option; did you mean optim=sgd_cosine? available:",
    "optim=1": "must be a string or a list. Got int; in ",
    "data.augment={_target_: data.augment.Cutout}": "override data.augment=",
    "+experiment=mnist_vit": "leave out the plus: experiment=mnist_vit",
    "optimizer.lr='": "cannot read the override optimizer.lr='",
    "experiment=cifar10_customcnn optimizer=adam": "sets optimizer.lr, optimizer.momentum",
    "model=dcgan objective=classification": "model and objective=classification do not fit",
    "model=dcgan optimizer.lr=1": "optimizer.lr=1 has no effect: each of the phases",
    "model=transformer data=mnist5k": "data=mnist5k do not fit: these data have no vocab_size",
    "model={_target_:torch.hub.load}": "model._target_=torch.hub.load is not allowed",
    "seed=0,1 hydra.launcher._target_=hydra_plugins.joblib_missing.Missing -m": (
        "'hydra_plugins.joblib_missing.Missing': pip install -r requirements-joblib.txt"
    ),
    "seed=0,1 hydra.launcher._target_=hydra_plugins.missing.Missing -m": (
        "'hydra_plugins.missing.Missing': pip install -r requirements-cluster.txt"
    ),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_gives_one_line_and_exit_code_one(words, command_here, data_root):
    given = [words] if "Cutout" in words else words.split()
    done = command_here(*MAIN, f"data.root={data_root}", *given)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert MISTAKES[words] in done.stderr


def test_a_mistake_raised_in_another_process():
    """As when a launcher's worker raises an error of Hydra's."""
    with pytest.raises(ConfigCompositionException) as raised:
        raise ConfigCompositionException("Could not override 'optimizer.lrr'.")
    explained = explain(raised.value, ["optimizer.lrr=1,2"])
    assert explained == "unknown setting optimizer.lrr: did you mean optimizer.lr?"


def test_deleted_working_directory(tmp_path):
    script = f"mkdir gone; cd gone; rmdir ../gone; {sys.executable} {ROOT / 'train.py'}"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: the working directory was deleted: change to one that exists\n"


SCRIPT = """
import os, runpy, sys
data_root, run_dir = sys.argv[1:]
train = ["debug=fast", "wandb.mode=offline", f"data.root={data_root}", f"hydra.run.dir={run_dir}"]
for words in (["--help"], ["--cfg", "job"], ["optim=typo"], ["optimizer.lrr=1"], train):
    sys.argv = ["train.py", *words]
    os.environ.pop("HYDRA_FULL_ERROR", None)
    try:
        runpy.run_path("train.py", run_name="__main__")
    except SystemExit as end:
        print("exit code", end.code)
    for name in ("torch", "numpy", "wandb", "torch._dynamo", "torch._inductor", "sympy"):
        if name in sys.modules:
            print("has imported", name)
"""


def test_lazy_imports(data_root, tmp_path):
    """Composing a config does not import torch, and training does not import the compiler."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(data_root), str(tmp_path / "run")],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    codes = re.findall("exit code (.*)", done.stdout)
    assert codes == ["0", "0", "1", "1", "0"], done.stderr
    composing, training = done.stdout.rsplit("exit code", 1)
    assert "has imported" not in composing
    assert re.findall("has imported (.*)", training) == ["torch", "numpy", "wandb"]

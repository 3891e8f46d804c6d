"""The commands as a user types them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

EXPERIMENTS = Path(__file__).parents[1] / "conf" / "experiment"
MAIN = ("train.py", "debug=fast", "wandb.mode=disabled")


def summaries(folder):
    return {file.parent.name: json.loads(file.read_text()) for file in folder.rglob("summary.json")}


def test_sweep_survives_a_failing_job(command, data_root, tmp_path):
    """Four jobs in one process: the broken one is reported at once, the others run, exit code 1."""
    done = command(
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


def test_bad_input_is_one_line_and_exit_code_one(command, data_root):
    done = command(*MAIN, f"data.root={data_root}", "optimizer.lrr=1")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: unknown setting optimizer.lrr: did you mean optimizer.lr?"
    )


def test_help_lists_groups_and_options(command):
    done = command("train.py", "--help")
    assert done.returncode == 0
    assert re.search(r"optim: [^:]*sgd_cosine", done.stdout)
    assert re.search(r"model: .*lightcnn", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert not re.search(r"\b_\w+", done.stdout)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optimizer.lr=1e-3,1e-2", "holds several values: add -m to sweep over them"),
        ("optim=1", "optim=1: no such option; There are"),
        ("data.augment={_target_: data.augment.Cutout}", "data.augment should be a list"),
        ("model=[1]", "model=[1]: no such option; There are"),
        ("+experiment=mnist_vit", "leave out the plus: experiment=mnist_vit"),
    ],
)
def test_a_mistake_in_an_override_is_explained(command, word, message):
    done = command("train.py", word)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert message in done.stderr


def test_a_deleted_working_directory(tmp_path):
    script = f"mkdir gone; cd gone; rmdir ../gone; {sys.executable} {ROOT / 'train.py'}"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: the working directory was deleted: change to one that exists\n"


def test_composed_config_can_be_shown(command):
    done = command("train.py", "--cfg", "job", "optim=adamw_warmup_cosine")
    assert done.returncode == 0
    assert "torch.optim.AdamW" in done.stdout


def test_recipe_of_another_optimizer_is_not_applied_silently(command, data_root):
    done = command(*MAIN, "experiment=cifar10_customcnn", "optimizer=adam")
    assert done.returncode == 1
    assert "sets optimizer.lr" in done.stderr
    assert "optimizer=adam was chosen" in done.stderr


@pytest.mark.parametrize("name", sorted(file.stem for file in EXPERIMENTS.glob("*.yaml")))
def test_a_recipe_on_the_command_line_wins_over_the_experiments(name, composed):
    """So that ``-m experiment=... optim=a,b`` compares what it says."""
    if name == "mnist_dcgan":
        pytest.skip("its phases have no recipe")
    config = composed(f"experiment={name}", "optim=lion_warmup_cosine", "++data.path=any.txt")
    assert config["optimizer"]["_target_"] == "timm.optim.Lion"
    assert config["scheduler"]["warmup_fraction"] is not None


@pytest.fixture
def imported(command):
    """``imported("train.py", ...)``: the modules that the command imports, and its exit code."""

    def run(*arguments):
        done = command(*arguments, PYTHONPROFILEIMPORTTIME="1")
        lines = done.stderr.splitlines()
        return {line.rpartition("|")[2].strip() for line in lines}, done.returncode

    return run


def test_start_imports_no_compiler(imported, data_root):
    """``torch._dynamo`` and what it brings cost more than the rest of the start."""
    modules, code = imported(
        "train.py", "debug=fast", "wandb.mode=offline", f"data.root={data_root}"
    )
    assert code == 0
    assert "torch" in modules
    assert not modules & {"torch._dynamo", "torch._inductor", "sympy", "torchvision"}


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [(["--help"], 0), (["optim=typo"], 1), (["optimizer.lrr=1"], 1), (["--cfg", "job"], 0)],
)
def test_what_composes_imports_no_torch(imported, arguments, exit_code):
    modules, code = imported("train.py", *arguments)
    assert code == exit_code
    assert "hydra" in modules
    assert not modules & {"torch", "numpy", "wandb"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("model=dcgan objective=classification", "model and objective=classification do not fit"),
        ("model=dcgan optimizer.lr=1", "optimizer.lr=1 has no effect: each of the phases"),
        (
            "model=transformer data=mnist5k",
            "data=mnist5k do not fit: these data have no vocab_size",
        ),
        ("model={_target_:torch.hub.load}", "model._target_=torch.hub.load is not allowed"),
    ],
)
def test_what_does_not_fit_is_named(command, data_root, arguments, message):
    done = command(*MAIN, f"data.root={data_root}", *arguments.split())
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1

"""Nothing runs that should not: Hydra's own nodes, stored files; no secret is written."""

import math
import os
import pickle
import shutil
import subprocess

import pytest
import torch
from omegaconf import OmegaConf

from core.environment import from_environment, recordable, without_environment
from core.errors import ConfigError
from core.run_directory import read_config
from trainer.checkpoint import files as checkpoint
from trainer.loggers import provenance
from trainer.loggers.provenance import source_state


def test_git_runs_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"touch {tmp_path / 'was_executed'}; false")
    source_state.__wrapped__()
    assert not list(tmp_path.iterdir())


def test_git_writes_nothing(monkeypatch, tmp_path):
    """``git status`` by itself would take the index's lock, and keep it if it is killed."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")

    def git(*arguments):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("as it is")
    git("add", "file")
    os.utime(tmp_path / "file", (0, 0))  # its entry is out of date
    index = tmp_path / ".git" / "index"
    before = index.read_bytes()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert source_state.__wrapped__()["git_dirty"]
    assert index.read_bytes() == before


def test_stored_config(train, few_digits):
    """A target in the config of a stored run or experiment is no more trusted than any other."""
    for key in ("model", "optimizer", "scheduler", "objective", "data"):
        with pytest.raises(ConfigError, match=rf"{key}\._target_=os\.system is not allowed"):
            train(f"{key}._target_=os.system")


class Payload:
    def __reduce__(self):
        return (pytest.fail, ("was executed",))


@pytest.mark.parametrize("kind", ["pickle", "torch", "inside"])
def test_checkpoint_executes_nothing(tmp_path, kind):
    file = tmp_path / "last.pt"
    if kind == "pickle":
        file.write_bytes(pickle.dumps(Payload()))
    else:
        content = Payload() if kind == "torch" else dict.fromkeys(checkpoint.PARTS, Payload())
        torch.save(content, file)
    with pytest.raises(ConfigError, match="is damaged"):
        checkpoint.load(file)


def test_what_was_typed_is_recorded_as_typed(train, few_digits):
    """However a setting is called and whatever it looks like."""
    given = {"class_token": "learned", "sort_key": "length", "name": "sk-abcdefghijklmnop"}
    overrides = [f"+model.{key}={value}" for key, value in given.items()]
    with pytest.raises(ConfigError, match=r"model\.class_token"):  # LightCNN has none
        train("debug=fast", *overrides)
    run_dir = train("debug=fast", f"wandb.tags={list(given.values())}")
    recorded = read_config(run_dir / "config.yaml")
    assert recorded["wandb"]["tags"] == list(given.values())


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        ("${oc.env:NAME}", "${oc.env:NAME}"),
        ("a/${oc.env:NAME}/b", "a/${oc.env:NAME}/b"),
        ("x ${first}", "x ${oc.env:NAME}"),
        ("${oc.env:${name}}", "${oc.env:NAME}"),
        ("${oc.env:NO_SUCH,${first}}", '${oc.env:NO_SUCH, "${oc.env:NAME}"}'),
        ('${oc.env:NO_SUCH,"it\'s"}', '${oc.env:NO_SUCH, "it\'s"}'),
        ("${oc.env:NO_SUCH,null}", "${oc.env:NO_SUCH, null}"),
        ("${oc.decode:${oc.env:NUMBER}}", '${oc.decode:"${oc.env:NUMBER}"}'),
        ("${oc.decode:'[5]'}", [5]),
        (r"\${oc}", "${oc}"),
        (["${first}", {"x": "${oc.select:first}"}], ["${oc.env:NAME}", {"x": "${oc.env:NAME}"}]),
    ],
)
def test_environment_in_records(monkeypatch, given, recorded):
    """It is recorded as the interpolation, alone, from which the value comes back."""
    monkeypatch.setenv("NAME", "battery")
    monkeypatch.setenv("NUMBER", "5")
    cfg = OmegaConf.create({"first": "${oc.env:NAME}", "name": "NAME", "value": given})
    resolved = OmegaConf.to_container(cfg, resolve=True)
    found = recordable(cfg, resolved)["value"]
    assert found == recorded
    assert from_environment(found, "value") == resolved["value"]


def test_a_setting_that_is_not_a_number_is_no_matter_of_the_environment():
    cfg = OmegaConf.create({"lr": math.nan})
    assert math.isnan(recordable(cfg, {"lr": math.nan})["lr"])


@pytest.mark.parametrize("given", ["${oc.select:'${oc.env:NAME}'}", r"\${oc.env:NAME}"])
def test_environment_that_cannot_be_recorded(monkeypatch, given):
    monkeypatch.setenv("NAME", "first")
    cfg = OmegaConf.create({"first": 1, "value": given})
    with pytest.raises(ConfigError, match=r"value: .* not in other interpolations"):
        recordable(cfg, OmegaConf.to_container(cfg, resolve=True))


def test_a_variable_that_is_gone():
    with pytest.raises(ConfigError, match=r"^data.root=.*: set the environment variable NO_SUCH$"):
        from_environment({"root": "${oc.env:NO_SUCH}/x"}, "data")


def test_messages_show_no_value(monkeypatch):
    monkeypatch.setenv("NAME", "battery")
    monkeypatch.setenv("SHORT", "5")
    config = {"a": ["${oc.env:NAME}", {"b": "x${oc.env:SHORT}"}]}
    assert without_environment("battery 5", config) == "${oc.env:NAME} 5"


SECRET = "correct-horse-battery"


@pytest.mark.parametrize("where", ["hydra.run.dir=run", "-m hydra.sweep.dir=run"])
def test_no_value_of_the_environment_is_written(command_here, tmp_path, data_root, where):
    """Not to the config, the log, the summary, the checkpoints, the sweep, nor to W&B's files."""
    (tmp_path / SECRET).symlink_to(data_root)
    arguments = (
        "train.py", *where.split(), "debug=fast", "wandb.mode=offline",
        "data.root=${oc.env:ROOT_OF_DATA}", "wandb.notes='a note ${oc.env:ROOT_OF_DATA}'",
        "wandb.tags=['${oc.env:ROOT_OF_DATA}']",
    )  # fmt: skip
    done = command_here(*arguments, ROOT_OF_DATA=SECRET)
    assert done.returncode == 0, done.stderr
    wrong = (*arguments, "data.val_fraction=2", "hydra.run.dir=run/2", "wandb.mode=disabled")
    failed = command_here(*wrong, ROOT_OF_DATA=SECRET)
    assert failed.returncode == 1
    assert SECRET not in done.stdout + done.stderr + failed.stdout + failed.stderr
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert len(files) > 10
    assert not [file for file in files if SECRET.encode() in file.read_bytes()]
    run_dir = "run/0" if where.startswith("-m") else "run"
    again = command_here("predict.py", run_dir, "--test", ROOT_OF_DATA=SECRET)
    assert again.returncode == 0, again.stderr
    unset = command_here("predict.py", run_dir, "--test")
    assert "set the environment variable ROOT_OF_DATA" in unset.stderr

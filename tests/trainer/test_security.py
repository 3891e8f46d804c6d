"""Stored configs, checkpoints and git settings execute no code; no secret is written."""

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


def test_git_config_is_not_executed(monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"touch {tmp_path / 'was_executed'}; false")
    source_state.__wrapped__()
    assert not list(tmp_path.iterdir())


def test_git_status_does_not_write_the_index(monkeypatch, tmp_path):
    """Plain ``git status`` locks the index, and leaves the lock behind if it is killed."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")

    def git(*arguments):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("as it is")
    git("add", "file")
    os.utime(tmp_path / "file", (0, 0))  # makes its index entry stale
    index = tmp_path / ".git" / "index"
    before = index.read_bytes()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert source_state.__wrapped__()["git_dirty"]
    assert index.read_bytes() == before


def test_forbidden_target_in_stored_config_is_rejected(train, few_digits):
    """Targets in the config of a stored run or experiment are not trusted."""
    for key in ("model", "optimizer", "scheduler", "objective", "data"):
        with pytest.raises(ConfigError, match=rf"{key}\._target_=os\.system is not allowed"):
            train(f"{key}._target_=os.system")


class Payload:
    def __reduce__(self):
        return (pytest.fail, ("was executed",))


@pytest.mark.parametrize("kind", ["pickle", "torch", "inside"])
def test_pickled_code_in_checkpoint_is_not_executed(tmp_path, kind):
    file = tmp_path / "last.pt"
    if kind == "pickle":
        file.write_bytes(pickle.dumps(Payload()))
    else:
        content = Payload() if kind == "torch" else dict.fromkeys(checkpoint.PARTS, Payload())
        torch.save(content, file)
    with pytest.raises(ConfigError, match="is damaged"):
        checkpoint.load(file)


def test_values_that_look_secret_are_recorded_as_typed(train, few_digits):
    """Settings are not redacted by their name or look; secrets belong in the environment."""
    typed = {"class_token": "learned", "sort_key": "length", "name": "sk-abcdefghijklmnop"}
    overrides = [f"+model.{key}={value}" for key, value in typed.items()]
    with pytest.raises(ConfigError, match=r"model\.class_token"):  # LightCNN has none
        train("debug=fast", *overrides)
    run_dir = train("debug=fast", f"wandb.tags={list(typed.values())}")
    recorded = read_config(run_dir / "config.yaml")
    assert recorded["wandb"]["tags"] == list(typed.values())


@pytest.mark.parametrize(
    ("value", "recorded"),
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
def test_environment_interpolations_are_recorded(monkeypatch, value, recorded):
    """Records keep the interpolation instead of the value, and restore the value from it."""
    monkeypatch.setenv("NAME", "battery")
    monkeypatch.setenv("NUMBER", "5")
    cfg = OmegaConf.create({"first": "${oc.env:NAME}", "name": "NAME", "value": value})
    resolved = OmegaConf.to_container(cfg, resolve=True)
    found = recordable(cfg, resolved)["value"]
    assert found == recorded
    assert from_environment(found, "value") == resolved["value"]


def test_nan_is_not_taken_for_an_environment_value():
    cfg = OmegaConf.create({"lr": math.nan})
    assert math.isnan(recordable(cfg, {"lr": math.nan})["lr"])


@pytest.mark.parametrize("value", ["${oc.select:'${oc.env:NAME}'}", r"\${oc.env:NAME}"])
def test_unrecordable_environment_values_are_rejected(monkeypatch, value):
    monkeypatch.setenv("NAME", "first")
    cfg = OmegaConf.create({"first": 1, "value": value})
    with pytest.raises(ConfigError, match=r"value: .* not in other interpolations"):
        recordable(cfg, OmegaConf.to_container(cfg, resolve=True))


def test_missing_environment_variable_is_named():
    with pytest.raises(ConfigError, match=r"^data.root=.*: set the environment variable NO_SUCH$"):
        from_environment({"root": "${oc.env:NO_SUCH}/x"}, "data")


def test_messages_hide_environment_values(monkeypatch):
    monkeypatch.setenv("NAME", "battery")
    monkeypatch.setenv("SHORT", "5")
    config = {"a": ["${oc.env:NAME}", {"b": "x${oc.env:SHORT}"}]}
    assert without_environment("battery 5", config) == "${oc.env:NAME} 5"


SECRET = "correct-horse-battery"


@pytest.mark.parametrize("where", ["hydra.run.dir=run", "-m hydra.sweep.dir=run"])
def test_environment_values_are_not_written_anywhere(command_here, tmp_path, data_root, where):
    """Checked on screen and in all files: config, log, summary, checkpoints, sweep and W&B."""
    (tmp_path / SECRET).symlink_to(data_root)
    arguments = (
        "train.py", *where.split(), "debug=fast", "wandb.mode=offline",
        "data.root=${oc.env:ROOT_OF_DATA}", "wandb.notes='a note ${oc.env:ROOT_OF_DATA}'",
        "wandb.tags=['${oc.env:ROOT_OF_DATA}']",
    )  # fmt: skip
    done = command_here(*arguments, ROOT_OF_DATA=SECRET)
    assert done.returncode == 0, done.stderr
    invalid = (*arguments, "data.val_fraction=2", "hydra.run.dir=run/2", "wandb.mode=disabled")
    failed = command_here(*invalid, ROOT_OF_DATA=SECRET)
    assert failed.returncode == 1
    assert SECRET not in done.stdout + done.stderr + failed.stdout + failed.stderr
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert len(files) > 10
    assert not [file for file in files if SECRET.encode() in file.read_bytes()]
    run_dir = "run/0" if where.startswith("-m") else "run"
    repeated = command_here("predict.py", run_dir, "--test", ROOT_OF_DATA=SECRET)
    assert repeated.returncode == 0, repeated.stderr
    unset = command_here("predict.py", run_dir, "--test")
    assert "set the environment variable ROOT_OF_DATA" in unset.stderr

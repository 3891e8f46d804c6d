"""Nothing runs that should not: Hydra's own nodes, stored files; no secret is written."""

import pickle

import pytest
import torch
import yaml
from hydra.errors import HydraException
from hydra.utils import instantiate as hydra_instantiate

import core.composed  # noqa: F401  (guards Hydra)
from core.errors import ConfigError
from tests.trainer.interrupting import summary
from trainer import checkpoint
from trainer.hydra_targets import HydraDictConfigurator
from trainer.loggers.provenance import source_state
from trainer.redact import REDACTED, redact_composed, redacted, redacted_text

ATTACKS = (
    "os.system",
    "posix.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.open",
    "builtins.getattr",
    "builtins.__import__",
    "importlib.import_module",
    "functools.partial",
    "pickle.load",
    "torch.load",
    "torch.hub.load",
    "torch.nn.os.system",
    "torch.optim.torch.load",
    "torch.nn.modules.module.functools.partial",
    "torch.utils.cpp_extension.load",
    "data.mnist5k.Path",
    "data.mnist5k.importlib.util",
    "data.cache.os.system",
    "data.mnist5k.mnist5k.__globals__",
    "data.__builtins__.eval",
    "models.build.torch.load",
    "optim.build.partial",
    "optim.build.instantiate",
    "trainer.distributed.launch.launch",
    "trainer.checkpoint.load",
    "hydra.utils.instantiate",
    "hydra.utils.get_method",
    "train.main",
)


@pytest.mark.parametrize("target", ATTACKS)
def test_hydra_builds_plugins_only(target):
    with pytest.raises((ConfigError, HydraException)):
        hydra_instantiate({"_target_": target})
    with pytest.raises((ConfigError, HydraException)):
        hydra_instantiate({"_target_": "trainer.sweep.Sweep", "x": {"_target_": target}})


@pytest.mark.parametrize("key", ["()", "class"])
@pytest.mark.parametrize("target", ["os.system", "logging.os.system", "logging.config.dictConfig"])
def test_hydra_logging(target, key):
    handler = {key: target, "command": "true"}
    with pytest.raises((ConfigError, ValueError)):
        HydraDictConfigurator({"version": 1, "handlers": {"x": handler}}).configure()


def test_hydra_sets_no_variables(command, tmp_path):
    given = "+hydra.job.env_set={PYTHONSTARTUP: x.py}"
    done = command("train.py", given)
    assert done.returncode == 1
    assert done.stderr == "error: hydra.job.env_set is not allowed: set variables in the shell\n"


def test_git_runs_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"touch {tmp_path / 'was_executed'}; false")
    source_state.__wrapped__()
    assert not list(tmp_path.iterdir())


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
        content = Payload() if kind == "torch" else dict.fromkeys(checkpoint.KINDS, Payload())
        torch.save(content, file)
    with pytest.raises(ConfigError, match="is damaged"):
        checkpoint.load(file)


def test_secrets_are_redacted(monkeypatch):
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "correct-horse-battery")
    monkeypatch.setenv("MY_SECRET_VALUE", "staple-and-horse")
    monkeypatch.setenv("DB_PASS", "battery-of-horses")
    monkeypatch.setenv("LONG_TOKEN", "a" * 300)  # longer than a file name may be
    assert redacted_text("a" * 300) == REDACTED
    assert redacted_text("staple-and-horse battery-of-horses") == f"{REDACTED} {REDACTED}"
    content = {
        "wandb": {"api_key": "abc", "mode": "auto", "tags": ["correct-horse-battery"]},
        "model": {"tokenizer": "bpe", "num_tokens": 5, "token": "xyz", "key": "plain"},
        "db_password": "hunter2",
        "url": "https://me:hunter2@example.org/x",
        "note": "hf_abcdefghijklmnop and sk-abcdefghijklmnop",
        "empty_token": "",
        "seed_key": 5,
    }
    assert redacted(content) == {
        "wandb": {"api_key": REDACTED, "mode": "auto", "tags": [REDACTED]},
        "model": {"tokenizer": "bpe", "num_tokens": 5, "token": REDACTED, "key": "plain"},
        "db_password": REDACTED,
        "url": f"https://{REDACTED}@example.org/x",
        "note": f"{REDACTED} and {REDACTED}",
        "empty_token": "",
        "seed_key": 5,
    }
    assert redacted_text("+wandb.api_key=abc x") == f"+wandb.api_key={REDACTED} x"
    assert redacted_text("optimizer.lr=0.1 model.num_tokens=5") == (
        "optimizer.lr=0.1 model.num_tokens=5"
    )
    assert redacted_text("word" * 100_000) == "word" * 100_000  # and it ends


def test_no_secret_is_written(train, few_digits, monkeypatch, tmp_path):
    """Not in config.yaml, the log, the summary or the events."""
    secret = "correct-horse-battery"
    monkeypatch.setenv("WANDB_API_KEY", secret)
    run_dir = train("debug=fast", "wandb.tags=['${oc.env:WANDB_API_KEY}']")
    files = [file for file in run_dir.rglob("*") if file.is_file()]
    assert len(files) > 5
    assert not [file for file in files if secret.encode() in file.read_bytes()]
    assert summary(run_dir)["overrides"][-1].startswith("wandb.tags")

    (tmp_path / "multirun.yaml").write_text(f"wandb: {{api_key: abc}}\nname: {secret}\n")
    redact_composed(tmp_path)
    composed = yaml.safe_load((tmp_path / "multirun.yaml").read_text())
    assert composed == {"wandb": {"api_key": REDACTED}, "name": REDACTED}


def test_no_secret_of_a_sweep_is_written(command, tmp_path):
    done = command(
        "train.py",
        "-m",
        "+wandb.api_key=abc_def_ghi",
        "optimizer.lr=-1",
        "wandb.mode=disabled",
        "hydra.sweep.dir=sweep",
    )
    assert f"=== job 0: +wandb.api_key={REDACTED} optimizer.lr=-1" in done.stdout
    assert "abc_def_ghi" not in done.stdout + done.stderr
    files = [file for file in (tmp_path / "sweep").rglob("*") if file.is_file()]
    assert (tmp_path / "sweep" / "multirun.yaml") in files
    assert not [file for file in files if b"abc_def_ghi" in file.read_bytes()]


def test_a_secret_that_is_a_word_breaks_no_names(monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "lightcnn")
    kept = {"_target_": "models.lightcnn.LightCNN", "file": "lightcnn_2.pt", "log": "lightcnn.log"}
    assert redacted(kept) == kept
    assert redacted_text("https://lightcnn@host/?token=lightcnn lightcnn.") == (
        f"https://{REDACTED}@host/?token={REDACTED} {REDACTED}."
    )

"""What W&B need not import: left out, unless somebody did import it."""

import importlib.metadata
import json
import re
import subprocess
import sys
import threading
import types

import pytest
import wandb
from wandb.analytics.opentelemetry import opentelemetry_proxy

from trainer.lean_wandb import APPLY_INPUTS, installed_packages, leave_unused_out

RUN = """
import sys, wandb
from trainer.lean_wandb import leave_unused_out
leave_unused_out()
run = wandb.init(mode="offline", dir=sys.argv[1], settings=wandb.Settings(silent=True))
run.log({"table": wandb.Table(columns=["a", "b"], data=[[1, "x"], [2, "y"]])})
print([name for name in ("pandas", "requests", "wandb.sdk.launch") if name in sys.modules])
import pandas
class Frame(pandas.DataFrame):
    pass
run.log({"frame": Frame({"a": [3], "b": ["z"]})})
run.finish()
"""


def test_a_run_with_tables(tmp_path):
    """pandas is left alone until somebody has imported it; then its data frames are known."""
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    tables = [json.loads(file.read_text()) for file in tmp_path.rglob("*.table.json")]
    contents = [(table["columns"], table["data"]) for table in tables]
    assert (["a", "b"], [[1, "x"], [2, "y"]]) in contents
    assert (["a", "b"], [[3, "z"]]) in contents


def test_installed_packages():
    """The same as the packages' own texts say, which may write a name otherwise."""
    told = {}
    for distribution in importlib.metadata.distributions():
        told.setdefault(plain(distribution.metadata["Name"]), distribution.version)
    found = [(plain(package.key), package.version) for package in installed_packages()]
    assert len(dict(found)) == len(found)
    assert dict(found) == told


def plain(name):
    """As PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_installed_reaches_the_run(monkeypatch):
    told = []
    monkeypatch.setattr("wandb.util.working_set", lambda: told.append("by W&B"))
    monkeypatch.setattr(opentelemetry_proxy, "_disabled", threading.Event())
    leave_unused_out()
    versions = {package.key: package.version for package in wandb.util.working_set()}
    assert versions["torch"] == importlib.metadata.version("torch")
    assert not told
    assert opentelemetry_proxy.get_open_telemetry_proxy() is None


@pytest.fixture
def fake_wandb(monkeypatch):
    """The class of W&B's runs, which notes whether staged inputs were applied."""

    class Run:
        applied = False

        def _detect_and_apply_job_inputs(self):
            self.applied = True

    module = types.SimpleNamespace(Run=Run)
    monkeypatch.setitem(sys.modules, "wandb.sdk.wandb_run", module)
    monkeypatch.setitem(sys.modules, "wandb.util", types.SimpleNamespace())
    monkeypatch.delitem(sys.modules, "wandb.sdk.launch", raising=False)
    return Run


def test_staged_inputs_are_applied_where_the_agent_was_imported(fake_wandb, monkeypatch):
    leave_unused_out()
    patched = getattr(fake_wandb, APPLY_INPUTS)
    leave_unused_out()
    assert getattr(fake_wandb, APPLY_INPUTS) is patched  # once, however many runs there are
    run = fake_wandb()
    run._detect_and_apply_job_inputs()
    assert not run.applied
    monkeypatch.setitem(sys.modules, "wandb.sdk.launch", types.ModuleType("launch"))
    run._detect_and_apply_job_inputs()
    assert run.applied


def test_another_wandb_is_left_as_it_is(monkeypatch):
    modules = {
        "wandb.sdk.wandb_run": types.SimpleNamespace(Run=type("Run", (), {})),
        "wandb.util": types.SimpleNamespace(),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    leave_unused_out()
    assert not hasattr(modules["wandb.sdk.wandb_run"].Run, APPLY_INPUTS)
    assert vars(modules["wandb.util"]) == {}

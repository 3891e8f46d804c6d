"""What W&B need not import: left out, unless somebody did import it."""

import subprocess
import sys
import types

import pytest

from trainer.lean_wandb import APPLY_INPUTS, leave_unused_out

RUN = """
import sys, wandb
from trainer.lean_wandb import leave_unused_out
leave_unused_out()
run = wandb.init(mode="offline", dir=sys.argv[1], settings=wandb.Settings(silent=True))
run.log({"table": wandb.Table(columns=["a", "b"], data=[[1, "x"], [2, "y"]])})
run.finish()
print([name for name in ("pandas", "wandb.sdk.launch") if name in sys.modules])
"""


def test_a_run_with_a_table(tmp_path):
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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
    for name in ("wandb.sdk.wandb_run", "wandb.util"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    leave_unused_out()

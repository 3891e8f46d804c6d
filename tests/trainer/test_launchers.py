"""Sweeps through Hydra's launchers: one directory, and the right status for each job."""

import pytest

from tests.trainer.interrupting import summary

LAUNCHERS = {"joblib": "joblib", "submitit_local": "submitit", "ray": "ray"}


@pytest.mark.slow
def test_parallel_jobs_of_several_processes(command, tmp_path):
    pytest.importorskip("joblib", reason="needs requirements-joblib.txt")
    processes = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
    sweep = ("-m", "seed=0,1", "hydra/launcher=joblib", "hydra.sweep.dir=sweep")
    done = command("train.py", *sweep, *processes, "debug=fast", "wandb.mode=disabled")
    assert done.returncode == 0, done.stderr
    jobs = [summary(tmp_path / "sweep" / job) for job in "01"]
    assert [job["world_size"] for job in jobs] == [2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_sweep_reports_failing_job(launcher, command, tmp_path):
    pytest.importorskip(LAUNCHERS[launcher], reason="needs requirements-cluster.txt")
    sweep = ("-m", "debug=fast", "wandb.mode=disabled", "optimizer.lr=0.1,-1")
    done = command("train.py", *sweep, f"hydra/launcher={launcher}", OMP_NUM_THREADS=None)
    assert done.returncode == 1, done.stderr
    assert "Warning" not in done.stderr
    (sweep,) = (tmp_path / "multirun").glob("*/*")
    good, bad = (summary(sweep / job) for job in "01")
    assert good["status"] == "completed"
    assert bad["status"] == "failed"
    assert "optimizer.lr=-1" in bad["error"]
    table = done.stdout[done.stdout.index("Sweep") :]
    assert "completed" in table
    assert "failed" in table
    assert str(sweep) in table
    if launcher != "submitit_local":  # one job per core, so one thread per job
        assert good["num_threads"] == 1

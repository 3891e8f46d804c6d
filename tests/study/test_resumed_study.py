"""Studies that were killed and resumed, and changes to the settings of a finished study."""

import json
from functools import cache
from itertools import product

import pytest

from core.errors import ConfigError
from tests.study.fake_study import HALVING, FakeLauncher, read_record, run_fake_study


def test_replicates_can_be_added_to_a_finished_study(tmp_path):
    run_fake_study(FakeLauncher(tmp_path), replicates=2)
    resumed = FakeLauncher(tmp_path)
    run_fake_study(resumed, replicates=3)
    assert len(resumed.names) == 2 * (4 + 2)
    assert all("-r2-" in name for name in resumed.names)


def test_killed_resume_keeps_results_of_unreached_replicates(tmp_path):
    """Values at earlier rungs are only in ``study.json``: a summary has the best value so far."""
    settings = {"halving": HALVING, "trials": 8, "replicates": 3}
    run_fake_study(FakeLauncher(tmp_path), **settings)
    before = read_record(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_fake_study(FakeLauncher(tmp_path, killed_after=1), untuned=True, **settings)
    record = read_record(tmp_path)
    assert all(entry in record["runs"] for entry in before["runs"])
    assert record["best"] == before["best"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Return a function that runs a whole study: it returns the settings, launcher and record."""

    @cache
    def study(sampler, replicates):
        settings = {"halving": HALVING | {"audit": True}, "sampler": sampler, "batch_size": 2}
        settings |= {"replicates": replicates, "untuned": True}
        launcher = FakeLauncher(tmp_path_factory.mktemp("uninterrupted"))
        run_fake_study(launcher, **settings)
        return settings, launcher, read_record(launcher.directory)

    return study


@pytest.mark.parametrize(
    ("sampler", "replicates", "killed_after"),
    [*product(["sobol", "tpe"], [1], [0, 5, 12, 20]), ("tpe", 3, 55), ("tpe", 3, 70)],
)
def test_killed_study_resumes_with_identical_results(
    tmp_path, uninterrupted, sampler, replicates, killed_after
):
    """No job is run twice, and resuming a finished study runs none."""
    settings, baseline, expected = uninterrupted(sampler, replicates)
    points = {str(entry["params"]) for entry in expected["runs"] if entry["phase"] == "tune"}
    assert len(points) == replicates * 8
    assert len(set(baseline.commands)) == len(baseline.commands)
    killed = FakeLauncher(tmp_path, killed_after=killed_after)
    with pytest.raises(KeyboardInterrupt):
        run_fake_study(killed, **settings)
    record = read_record(tmp_path)
    assert not record["finished"]
    assert set(killed.names) <= {entry["run_dir"] for entry in record["runs"]}
    resumed = FakeLauncher(tmp_path)
    run_fake_study(resumed, **settings)
    assert sorted(killed.commands + resumed.commands, key=str) == sorted(baseline.commands, key=str)
    record = read_record(tmp_path)
    for key in ("finished", "runs", "best"):
        assert record[key] == expected[key]
    rerun = FakeLauncher(tmp_path)
    run_fake_study(rerun, **settings)
    assert rerun.jobs == []


class KilledInSecondRung(FakeLauncher):
    """Kills the study at step 30 of the first trial that continues to the second rung, step 50."""

    def run(self, overrides):
        super().run(overrides)
        if overrides.get("trainer.limit_train_steps") == "50":
            file = self.directory / overrides["hydra.sweep.subdir"] / "summary.json"
            summary = json.loads(file.read_text())
            file.write_text(json.dumps({**summary, "status": "running", "steps": 30}))
            raise KeyboardInterrupt


def test_trial_killed_in_its_second_rung_is_resumed(tmp_path, uninterrupted):
    settings, _, expected = uninterrupted("sobol", 1)
    killed, resumed = KilledInSecondRung(tmp_path), FakeLauncher(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_fake_study(killed, **settings)
    run_fake_study(resumed, **settings)
    assert resumed.names[0] == killed.names[-1], "the killed trial is resumed first"
    assert read_record(tmp_path)["runs"] == expected["runs"]


def test_resuming_with_other_settings_is_rejected(tmp_path):
    run_fake_study(FakeLauncher(tmp_path))
    with pytest.raises(ConfigError, match=r"another hydra\.sweeper\.trials"):
        run_fake_study(FakeLauncher(tmp_path), trials=5)
    with pytest.raises(ConfigError, match=r"another trainer\.max_steps=7"):
        run_fake_study(FakeLauncher(tmp_path), "trainer.max_steps=7")

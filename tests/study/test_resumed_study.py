"""Studies that were killed, and what may be asked of a finished one."""

import json

import pytest

from core.errors import ConfigError
from tests.study.fake_study import HALVING, FakeLauncher, conduct_fake


def test_replicates_may_be_added_to_a_finished_study(tmp_path):
    conduct_fake(tmp_path, FakeLauncher(tmp_path), replicates=2)
    more = FakeLauncher(tmp_path)
    conduct_fake(tmp_path, more, replicates=3)
    assert len(more.names) == 2 * (4 + 2)
    assert all("-r2-" in name for name in more.names)


def test_what_is_known_of_replicates_that_are_not_reached_again_is_kept(tmp_path):
    """A trial that went to the end would show another value at its first rung than it had."""
    settings = {"halving": HALVING, "trials": 8, "replicates": 3}
    conduct_fake(tmp_path, FakeLauncher(tmp_path), **settings)
    before = json.loads((tmp_path / "study.json").read_text())
    with pytest.raises(KeyboardInterrupt):
        conduct_fake(tmp_path, FakeLauncher(tmp_path, killed_after=1), untuned=True, **settings)
    record = json.loads((tmp_path / "study.json").read_text())
    assert all(entry in record["runs"] for entry in before["runs"])
    assert record["best"] == before["best"]


@pytest.mark.parametrize("sampler", ["sobol", "tpe"])
@pytest.mark.parametrize("killed_after", [0, 5, 12, 20])
def test_killed_study_goes_on_and_runs_nothing_twice(tmp_path, sampler, killed_after):
    settings = {"halving": HALVING, "trials": 4, "sampler": sampler, "batch_size": 2}
    first = FakeLauncher(tmp_path, killed_after=killed_after)
    with pytest.raises(KeyboardInterrupt):
        conduct_fake(tmp_path, first, **settings)
    record = json.loads((tmp_path / "study.json").read_text())
    assert not record["finished"]
    assert set(first.names) <= {entry["run_dir"] for entry in record["runs"]}
    second = FakeLauncher(tmp_path)
    conduct_fake(tmp_path, second, **settings)
    commands = [
        (job["hydra.sweep.subdir"], job.get("trainer.limit_train_steps"))
        for job in first.jobs + second.jobs
        if not job["hydra.sweep.subdir"].startswith("preflight/")
    ]
    assert len(commands) == len(set(commands))
    points = [
        (job["optimizer"], job["optimizer.lr"])
        for job in first.jobs + second.jobs
        if "-tune-" in job["hydra.sweep.subdir"] and job["trainer.limit_train_steps"] == "10"
    ]
    assert len(points) == len(set(points)) == 8
    record = json.loads((tmp_path / "study.json").read_text())
    assert record["finished"]
    assert {entry["status"] for entry in record["runs"]} == {"completed", "pruned"}
    third = FakeLauncher(tmp_path)
    conduct_fake(tmp_path, third, **settings)
    assert third.jobs == []


@pytest.mark.parametrize("killed_after", [55, 70])
def test_killed_in_its_third_replicate_it_ends_as_if_left_alone(tmp_path, killed_after):
    settings = {"halving": HALVING | {"audit": True}, "sampler": "tpe", "batch_size": 2}
    settings |= {"replicates": 3, "untuned": True}
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    killed.mkdir()
    whole = FakeLauncher(alone)
    conduct_fake(alone, whole, **settings)
    first, second = FakeLauncher(killed, killed_after=killed_after), FakeLauncher(killed)
    with pytest.raises(KeyboardInterrupt):
        conduct_fake(killed, first, **settings)
    assert "-r2-" in first.names[-1]
    conduct_fake(killed, second, **settings)
    assert sorted(first.names + second.names) == sorted(whole.names)
    records = [json.loads((path / "study.json").read_text()) for path in (alone, killed)]
    assert records[0]["runs"] == records[1]["runs"]
    assert records[0]["best"] == records[1]["best"]


class KilledInSecondRung(FakeLauncher):
    """The first trial to reach 50 updates is killed on its way there, and the study with it."""

    def run(self, given):
        super().run(given)
        if given.get("trainer.limit_train_steps") == "50":
            file = self.directory / given["hydra.sweep.subdir"] / "summary.json"
            summary = json.loads(file.read_text())
            file.write_text(json.dumps({**summary, "status": "running", "steps": 30}))
            raise KeyboardInterrupt


def test_a_trial_killed_in_its_second_rung_goes_on(tmp_path):
    settings = {"halving": HALVING, "trials": 8}
    (tmp_path / "plain").mkdir()
    (tmp_path / "killed").mkdir()
    plain = conduct_fake(tmp_path / "plain", FakeLauncher(tmp_path / "plain"), **settings)
    killed = KilledInSecondRung(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        conduct_fake(tmp_path / "killed", killed, **settings)
    assert not json.loads((tmp_path / "killed" / "study.json").read_text())["finished"]
    again = FakeLauncher(tmp_path / "killed")
    done = conduct_fake(tmp_path / "killed", again, **settings)
    assert again.names[0] == killed.names[-1], "what was killed goes on"
    best = done.replicates[0].best()
    for name, chosen in plain.replicates[0].best().items():
        assert (best[name].number, best[name].values) == (chosen.number, chosen.values)
    record = json.loads((tmp_path / "killed" / "study.json").read_text())
    assert {entry["status"] for entry in record["runs"]} == {"completed", "pruned"}


def test_resumed_study_must_be_the_same(tmp_path):
    conduct_fake(tmp_path, FakeLauncher(tmp_path))
    with pytest.raises(ConfigError, match=r"another hydra\.sweeper\.trials"):
        conduct_fake(tmp_path, FakeLauncher(tmp_path), trials=5)
    with pytest.raises(ConfigError, match=r"another trainer\.max_steps=7"):
        conduct_fake(tmp_path, FakeLauncher(tmp_path), ("trainer.max_steps=7",))

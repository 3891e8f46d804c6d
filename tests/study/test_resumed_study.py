"""Studies that were killed, and what may be asked of a finished one."""

import json
from functools import cache
from itertools import product

import pytest

from core.errors import ConfigError
from tests.study.fake_study import HALVING, FakeLauncher, conduct_fake, record_of


def test_replicates_may_be_added_to_a_finished_study(tmp_path):
    conduct_fake(FakeLauncher(tmp_path), replicates=2)
    more = FakeLauncher(tmp_path)
    conduct_fake(more, replicates=3)
    assert len(more.names) == 2 * (4 + 2)
    assert all("-r2-" in name for name in more.names)


def test_what_is_known_of_replicates_that_are_not_reached_again_is_kept(tmp_path):
    """A trial that went to the end would show another value at its first rung than it had."""
    settings = {"halving": HALVING, "trials": 8, "replicates": 3}
    conduct_fake(FakeLauncher(tmp_path), **settings)
    before = record_of(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        conduct_fake(FakeLauncher(tmp_path, killed_after=1), untuned=True, **settings)
    record = record_of(tmp_path)
    assert all(entry in record["runs"] for entry in before["runs"])
    assert record["best"] == before["best"]


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory):
    """``left_alone(sampler, replicates)``: settings, launcher and record of a finished study."""

    @cache
    def study(sampler, replicates):
        settings = {"halving": HALVING | {"audit": True}, "sampler": sampler, "batch_size": 2}
        settings |= {"replicates": replicates, "untuned": True}
        launcher = FakeLauncher(tmp_path_factory.mktemp("left_alone"))
        conduct_fake(launcher, **settings)
        return settings, launcher, record_of(launcher.directory)

    return study


@pytest.mark.parametrize(
    ("sampler", "replicates", "killed_after"),
    [*product(["sobol", "tpe"], [1], [0, 5, 12, 20]), ("tpe", 3, 55), ("tpe", 3, 70)],
)
def test_killed_study_ends_as_if_left_alone_and_runs_nothing_twice(
    tmp_path, left_alone, sampler, replicates, killed_after
):
    settings, whole, expected = left_alone(sampler, replicates)
    points = {str(entry["params"]) for entry in expected["runs"] if entry["phase"] == "tune"}
    assert len(points) == replicates * 8
    assert len(set(whole.commands)) == len(whole.commands)
    first = FakeLauncher(tmp_path, killed_after=killed_after)
    with pytest.raises(KeyboardInterrupt):
        conduct_fake(first, **settings)
    record = record_of(tmp_path)
    assert not record["finished"]
    assert set(first.names) <= {entry["run_dir"] for entry in record["runs"]}
    second = FakeLauncher(tmp_path)
    conduct_fake(second, **settings)
    assert sorted(first.commands + second.commands, key=str) == sorted(whole.commands, key=str)
    record = record_of(tmp_path)
    for key in ("finished", "runs", "best"):
        assert record[key] == expected[key]
    third = FakeLauncher(tmp_path)
    conduct_fake(third, **settings)
    assert third.jobs == []


class KilledInSecondRung(FakeLauncher):
    """The first trial to reach 50 updates is killed on its way there, and the study with it."""

    def run(self, given):
        super().run(given)
        if given.get("trainer.limit_train_steps") == "50":
            file = self.directory / given["hydra.sweep.subdir"] / "summary.json"
            summary = json.loads(file.read_text())
            file.write_text(json.dumps({**summary, "status": "running", "steps": 30}))
            raise KeyboardInterrupt


def test_a_trial_killed_in_its_second_rung_goes_on(tmp_path, left_alone):
    settings, _, expected = left_alone("sobol", 1)
    killed, again = KilledInSecondRung(tmp_path), FakeLauncher(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        conduct_fake(killed, **settings)
    conduct_fake(again, **settings)
    assert again.names[0] == killed.names[-1], "what was killed goes on"
    assert record_of(tmp_path)["runs"] == expected["runs"]


def test_resumed_study_must_be_the_same(tmp_path):
    conduct_fake(FakeLauncher(tmp_path))
    with pytest.raises(ConfigError, match=r"another hydra\.sweeper\.trials"):
        conduct_fake(FakeLauncher(tmp_path), trials=5)
    with pytest.raises(ConfigError, match=r"another trainer\.max_steps=7"):
        conduct_fake(FakeLauncher(tmp_path), "trainer.max_steps=7")

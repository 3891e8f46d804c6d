"""The line that a study shows for each run."""

import pytest

from study import outlook
from tests.study.fake_study import FakeLauncher, conduct_fake, record_of


def test_place_time_left_settings_and_value(tmp_path, monkeypatch):
    class Telling(FakeLauncher):
        """Says of every run what its process would."""

        clock = 0.0

        def run(self, given):
            super().run(given)
            Telling.clock += 60
            name = given["hydra.sweep.subdir"]
            words = [f"{key}={value}" for key, value in given.items()]
            lines.append((name, outlook.line(self.directory, name, words)))

    lines = []
    monkeypatch.setattr(outlook.time, "time", lambda: Telling.clock)
    conduct_fake(Telling(tmp_path))
    assert lines[0] == ("preflight/sgd-0", "runs")
    _, *trials, last = [line for name, line in lines if not name.startswith("preflight")]
    rate = record_of(tmp_path)["runs"][1]["params"]["optimizer.lr"]
    # eight trials and four repeats, a minute each
    assert trials[0].startswith(f"trial 2 of 8, 10 min left  optimizer.lr={rate}  ")
    assert trials[7].startswith("repeat 1 of 4, 3 min left  ")
    assert last.startswith("repeat 4 of 4  optimizer.lr=")
    assert last.count("\n") == 0


def test_a_study_that_goes_on_counts_what_it_has(tmp_path):
    conduct_fake(FakeLauncher(tmp_path))
    conduct_fake(FakeLauncher(tmp_path), replicates=2)
    session = record_of(tmp_path)["session"]
    assert (session["num_trials"], session["num_repeats"]) == (16, 8)
    assert 2 * session["seconds_done"] == pytest.approx(session["seconds_planned"])
    assert outlook.line(tmp_path, "sgd-r1-tune-000", []).startswith("trial 16 of 16  ")

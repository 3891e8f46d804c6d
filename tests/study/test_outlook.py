"""The progress line that a study prints for each run that ends."""

import pytest

from study import outlook
from tests.study.fake_study import FakeLauncher, read_record, run_fake_study


def test_line_shows_run_number_time_left_and_settings(tmp_path, monkeypatch):
    class LineRecorder(FakeLauncher):
        """Collects the line of every run; each run takes a minute of simulated time."""

        clock = 0.0

        def run(self, overrides):
            super().run(overrides)
            LineRecorder.clock += 60
            name = overrides["hydra.sweep.subdir"]
            command = [f"{key}={value}" for key, value in overrides.items()]
            lines.append((name, outlook.line(self.directory, name, command)))

    lines = []
    monkeypatch.setattr(outlook.time, "time", lambda: LineRecorder.clock)
    run_fake_study(LineRecorder(tmp_path))
    assert lines[0] == ("preflight/sgd-0", "runs")
    _, *trials, last = [line for name, line in lines if not name.startswith("preflight")]
    lr = read_record(tmp_path)["runs"][1]["params"]["optimizer.lr"]
    # 8 trials and 4 repeats of one minute each
    assert trials[0].startswith(f"trial 2 of 8, 10 min left  optimizer.lr={lr}  ")
    assert trials[7].startswith("repeat 1 of 4, 3 min left  ")
    assert last.startswith("repeat 4 of 4  optimizer.lr=")
    assert last.count("\n") == 0


def test_resumed_study_counts_its_earlier_runs(tmp_path):
    run_fake_study(FakeLauncher(tmp_path))
    run_fake_study(FakeLauncher(tmp_path), replicates=2)
    session = read_record(tmp_path)["session"]
    assert (session["num_trials"], session["num_repeats"]) == (16, 8)
    assert 2 * session["seconds_done"] == pytest.approx(session["seconds_planned"])
    assert outlook.line(tmp_path, "sgd-r1-tune-000", []).startswith("trial 16 of 16  ")

"""The table at the end of a sweep, whatever state its jobs were left in."""

import json

import pytest

from study.sweep import Sweep

GOOD = {
    "status": "completed",
    "overrides": ["seed=0"],
    "monitor": "val/accuracy",
    "best": {"value": 0.5},
    "test/accuracy": 0.25,
    "train_seconds": 1.5,
}


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", "{[", "\0", *(json.dumps(GOOD | {key: "?"}) for key in ("best", "train_seconds"))],
)
def test_a_damaged_summary_is_a_failed_job(tmp_path, monkeypatch, capsys, content):
    for name, text in {"0": json.dumps(GOOD), "1": content}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(text)
    (tmp_path / "2" / ".hydra").mkdir(parents=True)
    monkeypatch.setattr(Sweep, "directory", tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    assert not Sweep.finish()
    printed = capsys.readouterr().out
    for part in ("50.00%", "25.00%", "1.5", "damaged", "no summary.json"):
        assert part in printed

"""Odd and broken sweeps: a useful report, or one clear line."""

import json
import math

import pandas as pd
import pytest
import yaml

from tests.analysis.run_directories import edit, write_run


def test_no_such_directory(tmp_path, run_report):
    code, _, err = run_report(tmp_path / "typo")
    assert code == 1
    assert err == f"error: {tmp_path / 'typo'}: no such directory\n"


def test_no_run_directory(tmp_path, run_report):
    code, _, err = run_report(tmp_path)
    assert code == 1
    assert "no run directory in it" in err


def test_runs_that_were_all_killed(sweep, run_report):
    """Their configs tell what they monitored; that none has finished is the reason."""
    folder = sweep(seeds=range(1))
    for run_dir in folder.iterdir():
        (run_dir / "summary.json").unlink()
    assert run_report(folder)[2] == "error: no run has finished (2 unfinished)\n"


@pytest.mark.parametrize("steps", [10, 30])
def test_a_run_that_says_running_is_not_finished(sweep, run_report, steps):
    """It was killed, or still runs: the values in its summary are those of its last evaluation."""
    folder = sweep()
    edit(folder / "3", status="running", steps=steps)
    code, out, _ = run_report(folder)
    assert code == 0
    assert pd.read_csv(folder / "report.csv")["n"].tolist() == [4, 5]
    assert "Of 10 runs, 1 unfinished (sgd_cosine)" in out


def test_a_run_that_monitored_nothing_stops_no_report(sweep, run_report):
    folder = sweep()
    edit(folder / "3", monitor=None)
    code, _, _ = run_report(folder)
    assert code == 0
    assert pd.read_csv(folder / "report.csv")["n"].tolist() == [5, 5]


def test_no_finished_run(sweep, run_report):
    folder = sweep(seeds=range(1), status="failed")
    edit(folder / "0", error="ConfigError: no data")
    (folder / "1" / "summary.json").unlink()
    code, _, err = run_report(folder)
    assert code == 1
    assert err == (
        "error: no run has finished (1 failed, 1 unfinished); "
        "the first error: ConfigError: no data\n"
    )


def test_one_candidate_all_diverged(sweep, run_report):
    folder = sweep(("sgd_cosine",))
    write_run(folder / "90", "adam_constant", status="diverged")
    code, out, _ = run_report(folder)
    assert code == 0
    assert "Without a finished run: adam_constant" in out


def test_different_monitors(sweep, run_report):
    folder = sweep()
    edit(folder / "3", monitor="val/loss", monitor_mode="min")
    code, _, err = run_report(folder)
    assert code == 1
    assert "val/accuracy (9 runs), val/loss (1 runs): choose with --metric" in err
    assert run_report(folder, "--metric", "val/accuracy")[0] == 0


def test_an_unknown_metric(sweep, run_report):
    folder = sweep()
    code, _, err = run_report(folder, "--metric", "val/f1", "--mode", "max")
    assert code == 1
    assert "no finished run has val/f1; there are optim/lr, train/loss, val/accuracy" in err
    assert "--mode max or --mode min" in run_report(folder, "--metric", "val/f1")[2]


def test_a_metric_that_some_runs_lack(sweep, run_report):
    folder = sweep()
    edit(folder / "0", **{"test/accuracy": None})
    code, out, _ = run_report(folder)
    table = pd.read_csv(folder / "report.csv").set_index("candidate")
    assert code == 0
    assert "Left out of sgd_cosine, for test/accuracy is missing or no number: 0." in out
    assert table["n"].to_dict() == {"sgd_cosine": 4, "adam_constant": 5}
    assert set(table["compared_on"]) == {"test/accuracy"}
    for seed in range(1, 5):
        edit(folder / str(seed), **{"test/accuracy": None})
    out = run_report(folder)[1]
    assert "No run of sgd_cosine has test/accuracy: candidates are compared on val/accuracy" in out


def test_a_finished_run_without_a_number(sweep, run_report):
    folder = sweep()
    edit(folder / "3", best={"value": None})
    (folder / "3" / "metrics.jsonl").write_text("")
    code, out, _ = run_report(folder)
    assert code == 0
    assert "Left out of sgd_cosine, for val/accuracy is missing or no number: 3." in out
    assert "Unequal numbers of seeds, from 4 to 5" in out


def test_survivors_are_not_crowned(sweep, run_report):
    """Of eight seeds of the better optimizer five diverged: it is ranked below, and not tested."""
    folder = sweep(("adam_constant", "adamw_warmup_cosine"), seeds=range(8))
    for seed in range(8):
        write_run(
            folder / f"wild{seed}", "wild", seed, level=0.99,
            status="diverged" if seed > 2 else "completed",
        )  # fmt: skip
    out = run_report(folder)[1]
    table = pd.read_csv(folder / "report.csv")
    assert table["candidate"].tolist() == ["adamw_warmup_cosine", "adam_constant", "wild"]
    assert table["verdict"].tolist() == ["highest mean", "worse", "seeds diverged"]
    assert table["num_seeds_diverged"].tolist() == [0, 0, 5]
    assert math.isnan(table["p"][2])
    assert "adamw_warmup_cosine has the highest mean test accuracy" in out
    assert "survivors tell only half of it: wild (5 of 8 seeds diverged), 98." in out
    assert "│ 3 of 8 │" in out


def test_where_every_candidate_has_seeds_that_diverged(sweep, run_report):
    folder = sweep()
    for job in (0, 5, 6):
        edit(folder / str(job), status="diverged", best=None)
    out = run_report(folder)[1]
    assert "Every candidate has seeds that diverged: of sgd_cosine (1 of 5 seeds diverged)." in out
    assert "orse: adam_constant" not in out


def test_one_seed_only(sweep, run_report):
    folder = sweep(seeds=range(1))
    code, out, _ = run_report(folder)
    assert code == 0
    assert "no interval, and no claim" in out
    assert "Too few seeds to tell the difference from chance" in out
    assert "p by" not in out
    assert pd.read_csv(folder / "report.csv")["p"].isna().all()


def test_half_written_records(sweep, run_report):
    folder = sweep()
    file = folder / "0" / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-20] + b"\xff\xfe\n[1]\n")
    (folder / "1" / "summary.json").write_text('{"status": "comp')
    (folder / "2" / "config.yaml").write_text("seed: [")
    code, out, _ = run_report(folder)
    assert code == 0
    assert "2 damaged lines" in out
    assert "Of 10 runs, 1 unfinished" in out
    assert "Runs without a readable config, so of no known candidate: 2" in out


def test_empty_run_directories(sweep, run_report):
    folder = sweep()
    (folder / "90" / ".hydra").mkdir(parents=True)
    for name in ("metrics.jsonl", "config.yaml"):
        (folder / "0" / name).unlink()
    assert run_report(folder)[0] == 0


@pytest.mark.parametrize("value", [3, "text", [1], {"a": [1]}, None])
def test_values_of_another_kind(sweep, run_report, value):
    """A record by another version, or edited by hand."""
    folder = sweep()
    edit(
        folder / "0",
        **dict.fromkeys(json.loads((folder / "0" / "summary.json").read_text()), value),
    )
    edit(folder / "1", status="completed", **dict.fromkeys(("seed", "best", "versions"), value))
    (folder / "2" / "config.yaml").write_text(
        yaml.safe_dump(dict.fromkeys(("trainer", "model"), value))
    )
    (folder / "3" / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": value}))
    assert run_report(folder, "--metric", "val/accuracy", "--mode", "max")[0] == 0


def test_an_unwritable_directory(sweep, tmp_path, run_report):
    (tmp_path / "file").write_text("")
    code, _, err = run_report(sweep(), "--output", tmp_path / "file")
    assert code == 1
    assert err == f"error: cannot write {tmp_path / 'file'}: File exists\n"

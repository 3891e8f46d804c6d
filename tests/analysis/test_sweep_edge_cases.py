"""Incomplete, inconsistent and damaged sweeps: a report with caveats, or a one-line error."""

import json

import pytest
import yaml

from tests.analysis.run_directories import edit_summary, write_run


def test_user_errors_are_one_line(sweep, tmp_path, report_error):
    folder = sweep()
    typo, empty, file = tmp_path / "typo", tmp_path / "empty", tmp_path / "file"
    empty.mkdir()
    file.write_text("")
    missing = tmp_path / "no" / "t.tex"
    for arguments, error in {
        (typo,): f"{typo}: no such directory",
        (empty,): f"{empty}: no run directory in it (none has summary.json)",
        (folder, "--metric", "val/f1"): (
            "is a higher or lower val/f1 better? Add --mode max or --mode min"
        ),
        (folder, "--metric", "val/f1", "--mode", "max"): (
            "no finished run has val/f1; they recorded optim/lr, train/loss, val/accuracy"
        ),
        (folder, "--by", "optimiser.lr"): (
            "--by optimiser.lr: no run has such a group or key; did you mean optimizer.lr?"
        ),
        (folder, "--output", file): f"cannot write {file}: File exists",
        (folder, "--latex", missing): f"cannot write {missing}: No such file or directory",
    }.items():
        assert report_error(*arguments) == f"error: {error}\n"


def test_sweep_without_a_finished_run_is_rejected(sweep, report_error):
    folder = sweep(seeds=range(1))
    for run_dir in folder.iterdir():
        edit_summary(run_dir, status="running")
    assert report_error(folder) == "error: no run has finished (2 unfinished)\n"
    edit_summary(folder / "0", status="failed", error="ConfigError: no data")
    assert report_error(folder) == (
        "error: no run has finished (1 failed, 1 unfinished); "
        "the first error: ConfigError: no data\n"
    )


def test_setting_missing_from_older_runs(sweep, run_report):
    """It makes a candidate of its own only if a run enables it."""
    folder = sweep()
    disabled = {"trainer": {"cuda_graph": False, "swa_start": 0}}
    for seed in range(5, 8):
        write_run(folder / str(10 + seed), "sgd_cosine", seed, config=disabled)
    out, table = run_report(folder)
    assert table["num_runs"].to_dict() == {"sgd_cosine": 8, "adam_constant": 5}
    assert "best setting" not in out
    write_run(folder / "20", "sgd_cosine", 9, config={"trainer": {"cuda_graph": True}})
    _, table = run_report(folder)
    assert table["num_runs"].to_dict() == {
        "sgd_cosine, trainer.cuda_graph=False": 8,
        "sgd_cosine, trainer.cuda_graph=True": 1,
        "adam_constant, trainer.cuda_graph=False": 5,
    }


def test_early_failure_is_assigned_to_its_candidate(sweep, run_report):
    """A run that fails early leaves only Hydra's unresolved config."""
    folder = sweep()
    for job in range(10):
        file = folder / str(job) / "config.yaml"
        resolved = yaml.safe_load(file.read_text())
        resolved |= {"monitor_mode": "max", "objective": {"fid_cache": "/data"}}
        file.write_text(yaml.safe_dump(resolved))
    unresolved = {**resolved, "monitor_mode": "auto", "objective": {"fid_cache": "${data.root}"}}
    write_run(folder / "90", "adam_constant", seed=5, status="failed")
    (folder / "90" / "config.yaml").unlink()
    (folder / "90" / ".hydra" / "config.yaml").write_text(yaml.safe_dump(unresolved))
    out, table = run_report(folder)
    assert table["num_runs"].to_dict() == {"sgd_cosine": 5, "adam_constant": 6}
    assert "best setting" not in out


def test_different_monitors_require_a_metric(sweep, run_report, report_error):
    folder = sweep()
    edit_summary(folder / "4", monitor=None)
    assert run_report(folder)[1]["n"].tolist() == [5, 5], "a run without a monitor is no error"
    edit_summary(folder / "3", monitor="val/loss", monitor_mode="min")
    assert "val/accuracy (8 runs), val/loss (1 runs): choose one with --metric" in report_error(
        folder
    )
    run_report(folder, "--metric", "val/accuracy")


def test_runs_without_a_value_are_excluded_by_name(sweep, run_report):
    folder = sweep()
    edit_summary(folder / "0", **{"test/accuracy": None})
    out, table = run_report(folder)
    assert "Left out of sgd_cosine because test/accuracy is missing or not a number: 0." in out
    assert "Unequal numbers of seeds, from 4 to 5" in out
    assert table["n"].to_dict() == {"sgd_cosine": 4, "adam_constant": 5}
    assert set(table["compared_on"]) == {"test/accuracy"}
    for seed in range(1, 5):
        edit_summary(folder / str(seed), **{"test/accuracy": None})
    edit_summary(folder / "3", best=None)
    out, table = run_report(folder)
    assert "No run of sgd_cosine has test/accuracy: candidates are compared on val/accuracy" in out
    assert "Left out of sgd_cosine because val/accuracy is missing or not a number: 3." in out
    assert set(table["compared_on"]) == {"val/accuracy"}


def test_diverged_runs_count_as_the_worst(sweep, run_report):
    """The otherwise better optimizer diverges for five of eight seeds and loses these pairs."""
    folder = sweep(("adam_constant", "adamw_warmup_cosine"), seeds=range(8))
    for seed in range(8):
        write_run(
            folder / f"wild{seed}", "wild", seed, accuracy=0.99,
            status="diverged" if seed > 2 else "completed",
        )  # fmt: skip
    write_run(folder / "broken", "broken", status="diverged")
    out, table = run_report(folder)
    assert table["verdict"].to_dict() == {
        "adamw_warmup_cosine": "may be best",
        "wild": "may be best",
        "adam_constant": "worse",
        "broken": "no value",
    }
    assert table["num_reported_diverged"].tolist() == [0, 5, 0, 1]
    assert table.loc["wild", "wins"] == 3 / 8
    worst = table.loc["wild", "test/accuracy"]
    assert worst < table.loc["adamw_warmup_cosine", "test/accuracy"]
    assert "counted with the worst value of any finished run: wild (5 of 8)." in out
    assert "Candidates without a finished run: broken." in out
    assert "│ 5 of 8 │" in out


@pytest.mark.parametrize(
    ("seeds", "messages"),
    [
        (
            range(1),
            (
                "1 candidate, 1 run ",
                "The test accuracy of all runs is 9",
                "no interval: only one seed",
            ),
        ),
        (range(5), ("1 candidate, 5 runs ", "The mean test accuracy of all runs is 9")),
    ],
)
def test_single_candidate_gets_no_verdict(sweep, run_report, seeds, messages):
    folder = sweep(("sgd_cosine",), seeds=seeds)
    out, table = run_report(folder)
    assert all(message in out for message in messages)
    assert "may be best" not in out
    assert "may have the best" not in out
    assert table["verdict"].isna().all()
    assert "candidates" not in (folder / "report.html").read_text().partition("To cite")[2]


def test_single_seed_gives_no_interval_or_test(sweep, run_report):
    out, table = run_report(sweep(seeds=range(1)))
    assert "no interval, and no claim" in out
    assert "Too few seeds to tell a difference from chance" in out
    assert "was tested" not in out
    assert table["p"].isna().all()


def test_damaged_files_are_skipped_and_reported(sweep, run_report):
    folder = sweep()
    file = folder / "0" / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-20] + b"\xff\xfe\n")
    (folder / "1" / "summary.json").write_text('{"status": "comp')
    (folder / "2" / "config.yaml").write_text("seed: [")
    for name in ("metrics.jsonl", "config.yaml"):
        (folder / "3" / name).unlink()
    bomb = "!!python/object/apply:os.mkdir [%s]" % (folder / "made")
    (folder / "4" / "config.yaml").write_text(bomb)
    out, table = run_report(folder)
    assert "Damaged lines skipped in metrics.jsonl, per run: 0 (1)." in out
    assert "Of 10 runs, 1 unfinished (sgd_cosine), 3 unreadable (unknown)" in out
    assert table["n"].to_dict() == {"adam_constant": 5, "sgd_cosine": 1, "unknown": 0}
    assert not (folder / "made").exists(), "code in a config must not run"


def test_files_with_unexpected_content_exclude_only_their_run(sweep, run_report):
    """Most of these files parse, but their values have types that training never writes."""
    folder = sweep()
    edit_summary(folder / "0", versions=None)
    edit_summary(folder / "1", steps="many")
    edit_summary(folder / "2", num_samples=[1])
    (folder / "3" / "summary.json").write_text("[" * 100_000)
    config = yaml.safe_load((folder / "4" / "config.yaml").read_text())
    (folder / "4" / "config.yaml").write_text(yaml.safe_dump(config | {"trainer": {}}))
    with (folder / "5" / "metrics.jsonl").open("a") as file:
        file.write('5\n{"step": "a"}\n{"step": 1%s}\n' % ("0" * 400))
    out, table = run_report(folder)
    assert "Damaged lines skipped in metrics.jsonl, per run: 5 (3)." in out
    assert table["n"].to_dict()["adam_constant"] == 5
    assert "4 unreadable (sgd_cosine)" in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "bf16"}, "Runs differ in precision: "),
        ({"device": "cuda"}, "Runs differ in hardware: cuda (a processor), 1 process, 1 thread"),
        ({"git_dirty": True}, "1 of 10 runs had uncommitted changes"),
        ({"data_order_hash": "other"}, "Runs of the same seed (0) differ in order of samples"),
        ({"initial_weights_hash": "other"}, "Runs of the same seed (0) differ in initial weights"),
        ({"synthetic_data": True}, "1 of 10 runs used synthetic data"),
        (
            {"num_evaluated": {"val": 500, "test": 999}},
            "1 of 10 runs were evaluated on only part of",
        ),
        ({"git_commit": "fedcba"}, "Runs differ in commit: "),
        (
            {"planned_steps": 20},
            "Runs that were configured to stop before their schedule ends: sgd_cosine.",
        ),
    ],
)
def test_differences_between_runs_are_reported(sweep, run_report, changes, message):
    folder = sweep()
    edit_summary(folder / "0", **changes)
    assert message in run_report(folder)[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"trainer": {"max_epochs": 9}},
            "Runs differ in length: 3 epochs (sgd_cosine); 9 epochs (adam_constant).",
        ),
        (
            {"optimizer": {"fused": True}},
            "differ in implementation, plain (sgd_cosine) and fused (adam_constant): this",
        ),
    ],
)
def test_differences_between_candidates_are_reported(sweep, run_report, config, message):
    folder = sweep(("sgd_cosine",))
    for seed in range(5):
        write_run(folder / f"b{seed}", "adam_constant", seed, config=config)
    assert message in run_report(folder)[0]


def test_best_setting_at_search_bound_is_reported(sweep, run_report):
    folder = sweep(seeds=range(2), lrs=(0.1, 0.2, 0.3))
    write_run(folder / "90", lr=0.4, accuracy=0.99)
    out, _ = run_report(folder)
    assert "The best optimizer.lr of sgd_cosine is the highest value tried" in out
    assert "optimistic" in out


def test_machine_speed_differing_by_candidate_is_reported(sweep, run_report):
    folder = sweep()
    for run_dir in folder.glob("*/"):
        if json.loads((run_dir / "summary.json").read_text())["seed"] > 1:
            edit_summary(run_dir, step_ms=180.0)
    assert "of the machine varied" not in run_report(folder)[0], "equal for both candidates"
    for run_dir in folder.glob("*/"):
        if "adam" in (run_dir / "config.yaml").read_text():
            edit_summary(run_dir, step_ms=300.0)
    out, _ = run_report(folder)
    assert "a step took 148 ms for sgd_cosine and 300 ms for adam_constant" in out

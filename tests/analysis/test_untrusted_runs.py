"""Untrusted run directories: a report excludes them by name and still covers the others."""

import json
import math
import os
from datetime import date

import pytest
import yaml

import report
from tests.analysis.run_directories import edit_summary, write_run

BILLION_LAUGHS = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGED_LAUGHS = "".join(
    f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
)


def replace(run, name, text):
    (run / name).unlink()
    (run / name).write_text(text)


def edit_config(run, **changes):
    config = yaml.safe_load((run / "config.yaml").read_text())
    replace(run, "config.yaml", yaml.safe_dump(config | changes))


def link_to_device(run, name):
    (run / name).unlink()
    (run / name).symlink_to("/dev/zero")


def replace_by_fifo(run, name):
    (run / name).unlink()
    os.mkfifo(run / name)


MALICIOUS = {
    "deep": lambda run: replace(run, "summary.json", '{"a":' * 9000 + "1" + "}" * 9000),
    "deeper_than_it_looks": lambda run: edit_summary(run, best=json.loads("[" * 900 + "]" * 900)),
    "deep_config": lambda run: replace(run, "config.yaml", "a: " + "[" * 900 + "]" * 900),
    "large": lambda run: edit_summary(run, best={"value": 10**400, "step": 30, "epoch": 3}),
    "laughs": lambda run: replace(run, "config.yaml", f"l0: &l0 [lol]\n{BILLION_LAUGHS}"),
    "merged": lambda run: replace(run, "config.yaml", f"m0: &m0 {{a: 1}}\n{MERGED_LAUGHS}"),
    "numbers_for_keys": lambda run: replace(run, "config.yaml", "1: {2: 3}"),
    "device": lambda run: link_to_device(run, "summary.json"),
    "device_config": lambda run: link_to_device(run, "config.yaml"),
    "fifo": lambda run: replace_by_fifo(run, "summary.json"),
    "fifo_events": lambda run: replace_by_fifo(run, "metrics.jsonl"),
    "one_line": lambda run: replace(run, "metrics.jsonl", "[" * (2 << 20)),
    "many_metrics": lambda run: replace(
        run, "metrics.jsonl", "".join(json.dumps({f"m/{n}": 1}) + "\n" for n in range(1200))
    ),
    "surrogates": lambda run: edit_summary(run, device="\ud800", overrides=["\ud800"]),
}
# readable: in a sweep these would become candidates of their own, so they are tested alone
UNUSUAL = {
    "choices": lambda run: replace(run, ".hydra/hydra.yaml", "hydra: {runtime: {choices: [1]}}"),
    "overrides": lambda run: edit_summary(run, overrides=5),
    "optimizer": lambda run: edit_config(run, optimizer="sgd"),
    "dates": lambda run: edit_config(run, days=[date(2000, 1, 1)]),
    "target": lambda run: edit_config(
        run,
        trainer={"max_epochs": 3, "max_steps": None, "limit_train_steps": None, "target": "high"},
    ),
    "infinite": lambda run: edit_summary(
        run, best={"value": math.inf}, **{"test/accuracy": math.inf}
    ),
    "no_torch": lambda run: edit_summary(run, versions={}),
    "another_split": lambda run: edit_summary(run, num_evaluated={"other": 1}),
}


def test_malicious_runs_are_excluded_by_name(sweep, capsys):
    folder = sweep()
    (folder / "multirun.yaml").write_text("hydra: {overrides: {task: 5, hydra: [[1]]}}")
    for name, make in MALICIOUS.items():
        make(write_run(folder / f"x_{name}", "sgd_cosine", 9))
    assert report.main([str(folder)]) == 0, capsys.readouterr().err
    printed = " ".join(capsys.readouterr().out.split())
    assert "has the best test accuracy" in printed
    deep = "x_deep (summary.json: nested too deep)"
    for name in (deep, "x_deep_config (", "x_large (", "x_laughs ("):
        assert name in printed


@pytest.mark.parametrize(
    "make", [*MALICIOUS.values(), *UNUSUAL.values()], ids=[*MALICIOUS, *UNUSUAL]
)
def test_malicious_run_alone_gives_at_most_one_error_line(tmp_path, capsys, make):
    make(write_run(tmp_path / "run"))
    code = report.main([str(tmp_path / "run")])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == code
    assert all(line.startswith("error: ") for line in lines)


def test_terminal_escape_sequences_are_not_printed(sweep, capsys):
    folder = sweep(config={"model": {"_target_": "\x1b]0;title\x07", "\x1b[2J": "\x9b31m"}})
    write_run(folder / "\x1b[31mred", "adam_\x1b[1m", 3, status="failed", error="\x1b[2J")
    for run in folder.iterdir():
        edit_summary(run, overrides=["\x1b[31m=1"], device="\x1b[5m", hardware="\x1b[5m")
    assert report.main([str(folder), "--markdown", str(folder / "report.md")]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\x9b" not in printed
    assert "\x1b" not in (folder / "report.md").read_text()


def test_symlinks_in_a_sweep_are_not_written_through(sweep, tmp_path, capsys):
    folder, outside = sweep(), tmp_path / "outside"
    outside.write_text("outside")
    for name in ("report.html", "report.csv", ".report.html.tmp", ".report.csv.tmp"):
        (folder / name).symlink_to(outside)
    assert report.main([str(folder)]) == 0, capsys.readouterr().err
    assert outside.read_text() == "outside"
    assert not (folder / "report.html").is_symlink()

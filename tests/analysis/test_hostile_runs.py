"""Run directories of strangers: in a report they are left out by name, and the others stand."""

import json
import math
import os
from datetime import date

import pytest
import yaml

import report
from tests.analysis.run_directories import edit, write_run

LAUGHS = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGED = "".join(f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 9))


def replace(run, name, text):
    (run / name).unlink()
    (run / name).write_text(text)


def reconfigure(run, **changes):
    config = yaml.safe_load((run / "config.yaml").read_text())
    replace(run, "config.yaml", yaml.safe_dump(config | changes))


def device(run, name):
    (run / name).unlink()
    (run / name).symlink_to("/dev/zero")


def fifo(run, name):
    (run / name).unlink()
    os.mkfifo(run / name)


HOSTILE = {
    "deep": lambda run: replace(run, "summary.json", '{"a":' * 9000 + "1" + "}" * 9000),
    "deeper_than_it_looks": lambda run: edit(run, best=json.loads("[" * 900 + "]" * 900)),
    "deep_config": lambda run: replace(run, "config.yaml", "a: " + "[" * 900 + "]" * 900),
    "large": lambda run: edit(run, best={"value": 10**400, "step": 30, "epoch": 3}),
    "laughs": lambda run: replace(run, "config.yaml", f"l0: &l0 [lol]\n{LAUGHS}"),
    "merged": lambda run: replace(run, "config.yaml", f"m0: &m0 {{a: 1}}\n{MERGED}"),
    "numbers_for_keys": lambda run: replace(run, "config.yaml", "1: {2: 3}"),
    "device": lambda run: device(run, "summary.json"),
    "device_config": lambda run: device(run, "config.yaml"),
    "fifo": lambda run: fifo(run, "summary.json"),
    "fifo_events": lambda run: fifo(run, "metrics.jsonl"),
    "one_line": lambda run: replace(run, "metrics.jsonl", "[" * (2 << 20)),
    "many_metrics": lambda run: replace(
        run, "metrics.jsonl", "".join(json.dumps({f"m/{n}": 1}) + "\n" for n in range(1200))
    ),
    "surrogates": lambda run: edit(run, device="\ud800", overrides=["\ud800"]),
}
# readable, so that they are candidates of their own
ODD = {
    "choices": lambda run: replace(run, ".hydra/hydra.yaml", "hydra: {runtime: {choices: [1]}}"),
    "overrides": lambda run: edit(run, overrides=5),
    "optimizer": lambda run: reconfigure(run, optimizer="sgd"),
    "dates": lambda run: reconfigure(run, days=[date(2000, 1, 1)]),
    "target": lambda run: reconfigure(
        run,
        trainer={"max_epochs": 3, "max_steps": None, "limit_train_steps": None, "target": "high"},
    ),
    "infinite": lambda run: edit(run, best={"value": math.inf}, **{"test/accuracy": math.inf}),
    "no_torch": lambda run: edit(run, versions={}),
    "another_split": lambda run: edit(run, num_evaluated={"other": 1}),
}


def test_hostile_runs_beside_good_ones(sweep, capsys):
    folder = sweep()
    (folder / "multirun.yaml").write_text("hydra: {overrides: {task: 5, hydra: [[1]]}}")
    for name, make in HOSTILE.items():
        make(write_run(folder / f"x_{name}", "sgd_cosine", 9))
    assert report.main([str(folder)]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    printed = " ".join(printed.split())
    assert "has the best test accuracy" in printed
    for name in (
        "x_deep (summary.json: nested too deep)",
        "x_deep_config (",
        "x_large (",
        "x_laughs (",
    ):
        assert name in printed


@pytest.mark.parametrize("make", [*HOSTILE.values(), *ODD.values()], ids=[*HOSTILE, *ODD])
def test_a_hostile_run_alone(tmp_path, capsys, make):
    make(write_run(tmp_path / "run"))
    code = report.main([str(tmp_path / "run")])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == code
    assert all(line.startswith("error: ") for line in lines)


def test_what_steers_a_terminal_is_shown(sweep, capsys):
    folder = sweep(config={"model": {"_target_": "\x1b]0;title\x07", "\x1b[2J": "\x9b31m"}})
    write_run(folder / "\x1b[31mred", "adam_\x1b[1m", 3, status="failed", error="\x1b[2J")
    for run in folder.iterdir():
        edit(run, overrides=["\x1b[31m=1"], device="\x1b[5m", hardware="\x1b[5m")
    assert report.main([str(folder), "--markdown", str(folder / "report.md")]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\x9b" not in printed
    assert "\x1b" not in (folder / "report.md").read_text()


def test_links_in_a_sweep_are_not_followed(sweep, tmp_path, capsys):
    folder, mine = sweep(), tmp_path / "mine"
    mine.write_text("mine")
    for name in ("report.html", "report.csv", ".report.html.tmp", ".report.csv.tmp"):
        (folder / name).symlink_to(mine)
    assert report.main([str(folder)]) == 0, capsys.readouterr().err
    assert mine.read_text() == "mine"
    assert not (folder / "report.html").is_symlink()

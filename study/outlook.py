"""Progress of a study: the line printed for each run that ends, in whichever process."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.run_directory import read_summary
from study.jobs import read_study, update_study
from study.preflight import FOLDER, Cost, duration, planned_seconds
from study.protocol import Protocol
from trainer.loggers.console import format_metric


def begin(protocol: Protocol, directory: Path) -> None:
    """Record in ``study.json`` when this session started, what was done before, and its plan."""
    done = seconds_done(directory, read_study(directory)["costs"])
    session = {"started_at": time.time(), "seconds_done": done}
    update_study(directory, {"session": session})
    plan(protocol, directory, rounds=1)


def plan(protocol: Protocol, directory: Path, rounds: int) -> None:
    """Record the runs planned for this session, with every candidate tuned ``rounds`` times."""
    content = read_study(directory)
    trials = repeats = 0
    seconds = 0.0  # one run at a time, by the preflight's costs
    for name, cost in content["costs"].items():
        tune, repeat = protocol.num_runs(protocol.candidates[name])
        trials += rounds * tune
        repeats += repeat
        seconds += planned_seconds(protocol, Cost(**cost), rounds * tune, repeat)
    planned = {"num_trials": trials, "num_repeats": repeats, "seconds_planned": seconds}
    update_study(directory, {"session": content["session"] | planned})


def line(directory: Path, name: str, overrides: list[str]) -> str:
    """The line of an ended run: its number, the time left, the settings tried, the result."""
    summary, content = read_summary(directory / name / "summary.json"), read_study(directory)
    status, best = str(summary.get("status", "failed")), summary.get("best")
    if status in ("completed", "stopped") and best and best["value"] is not None:
        monitor = str(summary.get("monitor", ""))
        status = f"{monitor} {format_metric(monitor, best['value'])}"
    if name.startswith(f"{FOLDER}/"):
        return "does not run" if status == "failed" else "runs"
    candidates = content.get("protocol", {}).get("candidates", {})
    space = (candidates.get(candidate_of(name)) or {}).get("space") or {}
    tried = [word for word in overrides if word.partition("=")[0] in space]
    return "  ".join([place(directory, name, content), *tried, status])


def place(directory: Path, name: str, content: dict[str, Any]) -> str:
    """``trial 12 of 28, 9 min left``."""
    if not (session := content.get("session")):
        return ""
    is_trial = "-tune-" in name
    kind, planned = ("trial", "num_trials") if is_trial else ("repeat", "num_repeats")
    num_ended = sum(
        summary["status"] != "running" and ("-tune-" in folder.name) == is_trial
        for folder, summary in runs(directory)
    )
    count = f"{kind} {num_ended} of {max(num_ended, session[planned])}"
    done = seconds_done(directory, content["costs"])
    made, left = done - session["seconds_done"], session["seconds_planned"] - done
    if made <= 0 or left < 0.1:
        return count
    return f"{count}, {duration((time.time() - session['started_at']) * left / made)} left"


def seconds_done(directory: Path, costs: dict[str, Any]) -> float:
    """Duration of all runs so far, one at a time, by the preflight's costs."""
    total = 0.0
    for folder, summary in runs(directory):
        if cost := costs.get(candidate_of(folder.name)):
            total += cost["startup_seconds"] + cost["step_seconds"] * summary.get("steps", 0)
    return total


def runs(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in directory.glob("*/summary.json"):
        if "status" in (summary := read_summary(file)):
            yield file.parent, summary


def candidate_of(name: str) -> str:
    return name.partition("-")[0]

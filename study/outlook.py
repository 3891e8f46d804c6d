"""Progress of a study: the line printed for each run that ends, in whichever process."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.files import write_json
from study.jobs import read_json
from study.preflight import FOLDER, Cost, duration, tuned_share
from study.protocol import Protocol
from trainer.loggers.console import format_metric

FILE = "study.json"


def begin(protocol: Protocol, costs: dict[str, Cost], directory: Path) -> None:
    """Record in ``study.json`` the runs planned for this session, and the time spent before it."""
    content = read_json(directory / FILE)
    content["session"] = {
        "started_at": time.time(),
        "num_trials": 0,
        "num_repeats": 0,
        "seconds_planned": 0.0,  # one run at a time, by the preflight's costs
        "seconds_done": seconds_done(directory, content["costs"]),
    }
    for name, cost in costs.items():
        trials, repeats = protocol.num_runs(protocol.candidates[name])
        plan(content["session"], protocol, cost, trials, repeats)
    write_json(content, directory / FILE)


def extend(protocol: Protocol, directory: Path) -> None:
    """Add to the plan that all candidates are tuned once more."""
    content = read_json(directory / FILE)
    for name, cost in content["costs"].items():
        trials, _ = protocol.num_runs(protocol.candidates[name])
        plan(content["session"], protocol, Cost(**cost), trials)
    write_json(content, directory / FILE)


def plan(
    session: dict[str, Any], protocol: Protocol, cost: Cost, trials: int, repeats: int = 0
) -> None:
    """Add runs of a candidate to the plan of this session."""
    session["num_trials"] += trials
    session["num_repeats"] += repeats
    share = tuned_share(protocol, cost.steps)
    session["seconds_planned"] += cost.seconds * (trials * share + repeats)


def line(directory: Path, name: str, overrides: list[str]) -> str:
    """The line of an ended run: its number, the time left, the settings tried, the result."""
    summary, content = read_json(directory / name / "summary.json"), read_json(directory / FILE)
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
    ended = [
        folder.name
        for folder, summary in runs(directory)
        if summary["status"] != "running" and ("-tune-" in folder.name) == is_trial
    ]
    count = f"{kind} {len(ended)} of {max(len(ended), session[planned])}"
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
        if "status" in (summary := read_json(file)):
            yield file.parent, summary


def candidate_of(name: str) -> str:
    return name.partition("-")[0]

"""The process that mirrors the runs of its parent to Weights & Biases, one after the other.

It reads what the runs leave behind, as they leave it. The parent (:mod:`trainer.wandb_mirror`)
tells it where a run begins and when its records are complete; if the parent is killed, what was
recorded until then is sent, and the run is marked as failed.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from trainer.errors import reason
from trainer.lean_wandb import import_wandb
from trainer.run_directory import read_config
from trainer.script import importing
from trainer.signals import SIGNALS
from trainer.wandb_run import close_run, open_run, send_event

POLL_SECONDS = 0.5
ORPHAN_SECONDS = 60
KILLED = {"status": "failed", "error": "the process was killed"}


def main() -> None:
    os.nice(10)  # training comes first
    parent = Connection(int(sys.argv[1]))
    for number in SIGNALS:  # whether to end is the parent's business
        signal.signal(number, lambda *_: None)  # W&B's service would inherit that it is ignored
    with suppress(Exception), importing():  # the first run will raise it again
        wandb = import_wandb()
        wandb.setup(wandb.Settings(silent=True))  # starts W&B's service
    problem = None
    while problem is None and (request := received(parent)):
        try:
            mirror(request, parent)
        except Exception as error:  # whatever W&B raises; it is for the next process to go on
            problem = f"{type(error).__name__}: {reason(error)}"
        send(parent, {"problem": problem})


def mirror(request: dict[str, Any], parent: Connection) -> None:
    """Mirror one run, from its beginning to its end."""
    run_dir = Path(request["run_dir"])
    run = open_run(
        read_config(run_dir / "config.yaml"),
        run_dir,
        request["overrides"],
        group=request["group"],
        id=request["id"],
        mode=request["mode"],
    )
    send(parent, {"url": run.url if request["mode"] == "online" else None})
    follow(run, run_dir, request["num_events"], parent)
    if received(parent):
        close_run(run, json.loads((run_dir / "summary.json").read_text()), run_dir)
    else:
        signal.alarm(ORPHAN_SECONDS)  # nobody else bounds the time
        close_run(run, KILLED, run_dir)


def follow(run: Any, run_dir: Path, num_events: int, parent: Connection) -> None:
    """Send the events behind the first ``num_events``, until the parent speaks or is gone."""
    number, rest, is_over = 0, b"", False
    with (run_dir / "metrics.jsonl").open("rb") as file:
        while not is_over:
            is_over = parent.poll(POLL_SECONDS)  # asked before reading: what is there is all
            *lines, rest = (rest + file.read()).split(b"\n")
            for line in lines:
                if number >= num_events:
                    send_event(run, number, json.loads(line), run_dir)
                number += 1


def received(parent: Connection) -> dict[str, Any] | None:
    """What the parent says; None if it is gone."""
    try:
        message: dict[str, Any] = json.loads(parent.recv_bytes())
    except (EOFError, OSError):
        return None
    return message


def send(parent: Connection, message: dict[str, Any]) -> None:
    with suppress(OSError):  # it is gone
        parent.send_bytes(json.dumps(message).encode())


if __name__ == "__main__":
    main()

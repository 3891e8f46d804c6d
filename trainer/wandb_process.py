"""The process that mirrors the runs of its parent to Weights & Biases, one after the other.

It reads what the runs leave behind, as they leave it. The parent (:mod:`trainer.wandb_mirror`)
tells it where a run begins, ``{"begin": {...}}``, and that its records are complete,
``{"finish": true}``; it answers with the run's address, ``{"url": ...}``, and at the end, or when
something goes wrong, with ``{"problem": ...}``. If the parent is killed, what was recorded until
then is sent, within a minute, and the run is marked as failed.
"""

import json
import os
import signal
import sys
import threading
import time
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from core.errors import reason
from core.files import lock
from core.run_directory import read_config
from trainer.lean_wandb import import_wandb
from trainer.wandb_run import close_run, log_code, open_run, send_event

POLL_SECONDS = 0.5
ORPHAN_POLL_SECONDS = 1.0
ORPHAN_SECONDS = 50.0  # to send what a killed parent has left
KILLED = {"status": "failed", "error": "the process was killed"}


def main() -> None:
    connection, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    os.nice(10)  # training comes first

    def heed(number: int, frame: FrameType | None) -> None:
        """Whether to end is the parent's business, while there is one."""
        if os.getppid() != parent:
            os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, heed)  # not SIG_IGN, which W&B's service would inherit
    threading.Thread(target=end_after, args=(parent,), daemon=True).start()
    with suppress(Exception):  # the first run will raise it again
        wandb = import_wandb()
        wandb.setup(wandb.Settings(silent=True))  # starts W&B's service
    problem = None
    while problem is None and (message := received(connection)):
        try:
            mirror(message["begin"], connection)
        except (Exception, SystemExit) as error:  # whatever W&B raises: the next run has another
            problem = f"{type(error).__name__}: {reason(error)}"
        send(connection, {"problem": problem})
    if problem is not None:
        os._exit(1)  # at Python's own exit W&B would report the run as a success


def end_after(parent: int) -> None:
    """Bound what is done for a parent that was killed, wherever W&B may hang."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_POLL_SECONDS)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


def mirror(job: dict[str, Any], connection: Connection) -> None:
    """Mirror one run, from its beginning to its end."""
    run_dir = Path(job["run_dir"])
    # a killed parent's process may still be sending the part before
    with closing(lock(run_dir / ".wandb.lock", wait=True)):
        run = open_run(
            read_config(run_dir / "config.yaml"),
            run_dir,
            job["overrides"],
            group=job["group"],
            id=job["id"],
            mode=job["mode"],
        )
        send(connection, {"url": run.url if job["mode"] == "online" else None})
        log_code(run)
        follow(run, run_dir, job["num_events"], connection)
        summary = KILLED
        if received(connection):
            summary = json.loads((run_dir / "summary.json").read_text())
        close_run(run, summary, run_dir)


def follow(run: Any, run_dir: Path, num_events: int, connection: Connection) -> None:
    """Send the events behind the first ``num_events``, until the parent speaks or is gone."""
    number, rest, is_over = 0, b"", False
    with (run_dir / "metrics.jsonl").open("rb") as file:
        while not is_over:
            is_over = connection.poll(POLL_SECONDS)  # asked before reading: what is there is all
            *lines, rest = (rest + file.read()).split(b"\n")
            for line in lines:
                if number >= num_events:
                    send_event(run, number, json.loads(line), run_dir)
                number += 1


def received(connection: Connection) -> dict[str, Any] | None:
    """What the parent says; None if it is gone."""
    try:
        message: dict[str, Any] = json.loads(connection.recv_bytes())
    except (EOFError, OSError):
        return None
    return message


def send(connection: Connection, message: dict[str, Any]) -> None:
    with suppress(OSError):  # nobody is there
        connection.send_bytes(json.dumps(message).encode())


if __name__ == "__main__":
    main()

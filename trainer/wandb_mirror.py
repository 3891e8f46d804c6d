"""Mirror a run to Weights & Biases through another process.

Importing wandb and starting its service costs a second, its threads would slow down every update,
and a server may be slow or gone. So a process of its own follows the records of the run (see
:mod:`trainer.wandb_process`), and training never waits for it. What did not arrive is still in
``metrics.jsonl``, from which :mod:`trainer.wandb_sync` sends it again.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from core.errors import reason
from core.job import Job
from core.ranks import ranks_of_this_process

FINISH_TIMEOUT_SECONDS = 60.0
HURRIED_TIMEOUT_SECONDS = 5.0  # for an interrupted run, or where there was trouble before
LEAVE_SECONDS = 0.2
UNFINISHED = "the run ended before W&B had all of it"
troubled: list[str] = []  # run directories of this process that W&B does not have in full


class WandbMirror:
    """One W&B run for one job; silent and without prompts."""

    def __init__(self, config: dict[str, Any], job: Job, earlier: dict[str, Any]) -> None:
        """``earlier`` is the :meth:`state` of the run that goes on, empty for a new one."""
        self.settings = config["wandb"]
        self.job = job
        self.mode = choose_mode(self.settings["mode"])
        # the agent of a W&B sweep waits for the run that it named
        agents = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
        self.id = earlier.get("id") or agents or secrets.token_hex(4)
        self.url: str | None = earlier.get("url")
        self.problem: str | None = None
        self.is_over = False
        self.process: WandbProcess | None = None

    def start(self, num_events: int) -> None:
        """Begin to follow ``metrics.jsonl``, behind its first ``num_events`` lines."""
        if self.mode == "disabled":
            return
        job = {
            "run_dir": self.job.run_dir,
            "overrides": list(self.job.overrides),
            "num_events": num_events,
            "group": self.group,
            "id": self.id,
            "mode": self.mode,
        }
        try:
            self.process = running_process()
        except OSError as error:
            self.settle(f"W&B's process cannot be started: {reason(error)}")
            return
        self.problem = UNFINISHED  # until it is known better, should the process be killed
        self.process.send({"begin": job})

    def finish(self, status: str) -> None:
        """The records are complete: end the run; wait a bounded time for what is to be sent."""
        if self.process is None:
            return
        is_hurried = status == "interrupted" or troubled
        seconds = HURRIED_TIMEOUT_SECONDS if is_hurried else FINISH_TIMEOUT_SECONDS
        self.process.send({"finish": True})
        deadline = time.monotonic() + seconds
        while not self.is_over and (left := deadline - time.monotonic()) > 0:
            self.listen(self.process, left)
        if not self.is_over:
            self.settle(f"W&B did not answer within {seconds:.0f} s")

    def abandon(self) -> None:
        """Leave the run as it is, unless it has ended; its process serves no other."""
        if self.process is not None and not self.is_over:
            self.settle(UNFINISHED)

    def settle(self, problem: str | None) -> None:
        """The mirroring of this run is over."""
        self.problem, self.is_over = problem, True
        if problem is not None:
            troubled.append(self.job.run_dir)
            if self.process is not None:
                self.process.end()

    def listen(self, process: WandbProcess, seconds: float) -> bool:
        """Take in the next thing that the process says; False if it says nothing in time."""
        answer = process.answer(seconds)
        if answer is None:
            return False
        if "url" in answer:
            self.url = answer["url"]
        else:
            self.settle(answer["problem"])
        return True

    def state(self) -> dict[str, Any]:
        """What is known of the W&B run by now."""
        while self.process is not None and not self.is_over and self.listen(self.process, 0):
            pass
        return {"id": self.id, "group": self.group, "mode": self.mode, "url": self.url}

    @property
    def group(self) -> str | None:
        return self.settings["group"] or self.job.sweep


class WandbProcess:
    """One that has imported W&B and waits to be told of runs."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        # numpy's threads would be busy at once
        changes = {"PYTHONPATH": str(Path(__file__).parent.parent), "OPENBLAS_NUM_THREADS": "1"}
        parent = str(os.getpid())
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "trainer.wandb_process", str(theirs.fileno()), parent],
            env=os.environ | changes,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a signal to all processes of a terminal is for the run
        )
        theirs.close()
        atexit.register(self.leave)

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def send(self, message: dict[str, Any]) -> None:
        with suppress(OSError):  # it has ended, as answer() says
            self.connection.send_bytes(json.dumps(message).encode())

    def answer(self, seconds: float) -> dict[str, Any] | None:
        """The next thing it says, if it does so in time."""
        try:
            if not self.connection.poll(seconds):
                return None
            answer: dict[str, Any] = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return {"problem": f"W&B's process {self.how_it_ended()}"}
        return answer

    def how_it_ended(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(LEAVE_SECONDS)
        code = self.process.returncode
        if code is None:
            return "does not listen any more"
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        return f"has ended {how}"

    def leave(self) -> None:
        """Let it go: with nobody to listen to, it ends."""
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):  # it ends all the same
            self.process.wait(LEAVE_SECONDS)

    def end(self) -> None:
        self.leave()
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):  # it hangs in the system
            self.process.wait(LEAVE_SECONDS)


_process: WandbProcess | None = None


def running_process() -> WandbProcess:
    """The one of before, if it still runs: it serves all jobs of a sweep."""
    global _process
    if _process is None or not _process.is_alive:
        _process = WandbProcess()
    return _process


def warm_up(config: dict[str, Any]) -> None:
    """Let W&B be imported while this process imports torch and builds the model."""
    if choose_mode(config["wandb"]["mode"]) != "disabled" and ranks_of_this_process().is_main:
        with suppress(OSError):  # the run will say it
            running_process()


def choose_mode(mode: str) -> str:
    """``auto`` is online where a key is configured, else offline; never a prompt."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return "online"
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return "online" if "wandb" in netrc.read_text() else "offline"
    except OSError:
        return "offline"

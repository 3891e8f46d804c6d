"""Send a run to W&B from its records, for example after the server was unreachable.

    python -m trainer.loggers.wandb_send outputs/2026-01-31/12-00-00_1a2b3c
    python -m trainer.loggers.wandb_send --new-run RUN_DIR...

The run keeps its id, and events that W&B already has are not sent twice. ``--new-run`` sends it
under a new id, for runs that W&B has incompletely, with a gap that cannot be filled.
"""

import argparse
import sys
from contextlib import closing
from pathlib import Path

from core.environment import from_environment
from core.errors import ConfigError, reason
from core.files import lock
from core.job import Job
from core.records import read_record
from core.run_directory import read_config
from data.spec_file import read_spec
from trainer.loggers.run_files import read_events
from trainer.loggers.wandb_logger import WandbLogger


def send(run_dir: Path, new_run: bool) -> str:
    """Send everything the run has recorded; returns its URL, if it is online.

    Raises:
        ConfigError: if the run directory is incomplete or damaged, or W&B rejects it.
    """
    try:
        config = read_config(run_dir / "config.yaml")
        for name in ("config.yaml", "summary.json", "metrics.jsonl", "spec.json"):
            if (run_dir / name).is_symlink():
                raise ConfigError(f"{run_dir / name} is a symbolic link, which is never sent")
        summary = read_record(run_dir / "summary.json")
        for _ in read_events(run_dir / "metrics.jsonl"):
            pass  # validate the whole file before sending any of it
        known = {} if new_run else summary["wandb"]
        settings = from_environment(config["wandb"], "wandb") | {"mode": "auto"}
        settings["group"] = summary["wandb"]["group"]
        job = Job(str(run_dir), tuple(summary["overrides"]))
        logger = WandbLogger(settings, config, job, known, say=print, warn=print)
        with closing(lock(run_dir / ".lock")):
            logger.write_header(read_spec(run_dir / "spec.json"), {})
            for number, event in enumerate(read_events(run_dir / "metrics.jsonl")):
                logger.log_event(number, event)
            logger.finalize(summary)
    except BlockingIOError as error:
        raise ConfigError(f"another process is running in {run_dir}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{run_dir} cannot be read: {reason(error)}") from error
    if logger.state["problem"] or logger.state["mode"] == "disabled":
        raise ConfigError(f"{run_dir} was not sent: {logger.state['problem'] or 'W&B is disabled'}")
    return str(logger.state["url"] or "offline; send it with wandb sync")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path, nargs="+")
    parser.add_argument("--new-run", action="store_true", help="under a new id")
    arguments = parser.parse_args()
    code = 0
    for run_dir in arguments.run_dir:
        try:
            print(f"{run_dir}: {send(run_dir.absolute(), arguments.new_run)}")
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Send a run to W&B again, from its records: for runs whose server was away, slow or full.

    python -m trainer.wandb_sync outputs/2026-01-31/12-00-00_1a2b3c
    python -m trainer.wandb_sync --new-run RUN_DIR...

The run keeps its id, and what W&B already has of it is not sent twice. ``--new-run`` sends it
under an id of its own: for runs that W&B holds in part, with a gap that nothing can fill. A run
that was killed has no summary, and then takes its id from its last checkpoint. Code is not sent:
what stands here by now may be other than what ran.
"""

import argparse
import json
import secrets
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import yaml

from core.errors import ConfigError, reason
from core.files import lock
from core.run_directory import read_config
from trainer.loggers.run_log import read_events
from trainer.resume import newest, take_lock
from trainer.wandb_mirror import choose_mode
from trainer.wandb_run import close_run, open_run, send_event

NEEDED = {"project", "entity", "tags", "job_type", "group"}


def send_again(run_dir: Path, new_run: bool) -> str:
    """Send everything that the run left behind; where it is now.

    Raises:
        ConfigError: the run directory is incomplete or damaged, or W&B refused.
    """
    config = read_config(run_dir / "config.yaml")
    section = config.get("wandb")
    if not isinstance(section, dict) or not set(section) >= NEEDED:
        raise ConfigError(f"{run_dir / 'config.yaml'} is damaged: it has no whole wandb section")
    # a run that goes on sends itself; of one that was killed, another process may still send
    with closing(take_lock(run_dir)), closing(lock(run_dir / ".wandb.lock", wait=True)):
        summary, events = read_summary(run_dir), read_events(run_dir / "metrics.jsonl")
        try:
            return send(run_dir, config, summary, events, new_run)
        except ConfigError:
            raise
        except Exception as error:  # whatever W&B raises, and files that are gone
            why = f"{type(error).__name__}: {reason(error)}"
            raise ConfigError(f"cannot send {run_dir}: {why}") from error


def send(
    run_dir: Path,
    config: dict[str, Any],
    summary: dict[str, Any],
    events: list[dict[str, Any]],
    new_run: bool,
) -> str:
    mode = choose_mode("auto")
    if mode == "disabled":
        raise ConfigError("WANDB_MODE=disabled: nothing can be sent")
    run = open_run(
        config,
        run_dir,
        summary["overrides"],
        group=summary["wandb"].get("group") or config["wandb"]["group"],
        id=(not new_run and summary["wandb"].get("id")) or secrets.token_hex(4),
        mode=mode,
    )
    for number, event in enumerate(events):
        send_event(run, number, event, run_dir)
    url = run.url
    close_run(run, summary, run_dir)
    return url or str(run.dir)


def read_summary(run_dir: Path) -> dict[str, Any]:
    """The run's summary; where there is none, what else tells of a run that was killed."""
    file = run_dir / "summary.json"
    if not file.exists():
        return summary_of_killed(run_dir)
    try:
        summary = json.loads(file.read_text())
        if not isinstance(summary["wandb"]["id"], str) or not isinstance(summary["status"], str):
            raise TypeError("it is not what a run wrote")
        summary["overrides"] = [str(override) for override in summary["overrides"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot read {file}: {reason(error)}") from error
    return summary


def summary_of_killed(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"status": "interrupted", "overrides": [], "wandb": {}}
    with suppress(OSError, ValueError, yaml.YAMLError):
        overrides = yaml.safe_load((run_dir / ".hydra" / "overrides.yaml").read_text())
        found["overrides"] = [str(override) for override in overrides or ()]
    with suppress(ConfigError):
        _, content = newest(run_dir / "checkpoints", [])
        found["wandb"] = content["wandb"] if content else {}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path, nargs="+")
    parser.add_argument("--new-run", action="store_true", help="under a new id")
    arguments = parser.parse_args()
    code = 0
    for run_dir in arguments.run_dir:
        try:
            print(f"{run_dir}: {send_again(run_dir.absolute(), arguments.new_run)}")
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Send a run to W&B again, from its records: for runs whose server was away, slow or full.

    python -m trainer.wandb_sync outputs/2026-01-31/12-00-00_1a2b3c
    python -m trainer.wandb_sync --new-run RUN_DIR...

The run keeps its id, and what W&B already has of it is not sent twice. ``--new-run`` sends it
under an id of its own: for runs that W&B holds in part, with a gap that nothing can fill.
"""

import argparse
import json
import secrets
import sys
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.records import keep_events
from trainer.redact import redacted
from trainer.run_directory import read_config
from trainer.wandb_mirror import choose_mode, close_run, open_run, send_event


def send_again(run_dir: Path, new_run: bool) -> str:
    """Send everything that the run left behind; where it is now.

    Raises:
        ConfigError: the run directory is incomplete or damaged, or W&B refused.
    """
    config = redacted(read_config(run_dir / "config.yaml"))
    try:
        summary = json.loads((run_dir / "summary.json").read_text())
        group, own_id = summary["wandb"]["group"], summary["wandb"]["id"]
        overrides = summary["overrides"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot read {run_dir / 'summary.json'}: {error}") from error
    events = read_events(run_dir)
    mode = config["wandb"]["mode"]
    run = open_run(
        config,
        run_dir,
        overrides,
        group=group,
        id=secrets.token_hex(4) if new_run else own_id,
        mode="online" if mode == "disabled" else choose_mode("auto"),
    )
    for number, event in enumerate(events):
        send_event(run, number, event, run_dir)
    url = run.url
    close_run(run, summary, run_dir)
    return url or str(run.dir)


def read_events(run_dir: Path) -> list[dict[str, Any]]:
    file = run_dir / "metrics.jsonl"
    if not file.exists():
        raise ConfigError(f"cannot read {file}: there is no such file")
    return keep_events(file, sys.maxsize)


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

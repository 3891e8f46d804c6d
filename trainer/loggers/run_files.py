"""The files of a run directory: config.yaml, spec.json, metrics.jsonl, summary.json, media/."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from core.errors import ConfigError, reason
from core.files import no_link, write_json, write_text
from core.job import Job
from core.records import lines_of, parse_json
from data.spec_file import spec_content
from objectives.base import ConfusionMatrix, Picture, Table, Text
from trainer.loggers.writer import Writer, writing


class RunFiles(Writer):
    """Writes the files; ``metrics.jsonl`` grows line by line, the others are replaced atomically.

    Args:
        config: the config to record, without values from the environment.
    """

    def __init__(self, config: dict[str, Any], job: Job) -> None:
        self.run_dir, self.config = job.path, config
        for name, content in job.composed.items():  # Hydra itself would write too early
            (self.run_dir / ".hydra").mkdir(exist_ok=True)
            write_yaml(content, self.run_dir / ".hydra" / name)
        self.events_file = self.run_dir / "metrics.jsonl"
        with writing(self.events_file):
            self.events = open(self.events_file, "a", encoding="utf-8", opener=no_link)  # noqa: SIM115

    def write_header(self, spec: Any, facts: dict[str, Any]) -> None:
        write_yaml(self.config, self.run_dir / "config.yaml")
        write_json(spec_content(spec), self.run_dir / "spec.json")

    def log_event(self, number: int, event: dict[str, Any]) -> None:
        with writing(self.events_file):
            self.events.write(json.dumps(event) + "\n")
            self.events.flush()

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_json(summary, self.run_dir / "summary.json")

    def finalize(self, summary: dict[str, Any]) -> None:
        self.events.close()


def write_yaml(content: Any, file: Path) -> None:
    write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), file)


def media_folder(run_dir: Path, name: str, step: int) -> Path:
    """``media/`` itself for the test, a subfolder per step for other evaluations."""
    media = run_dir / "media"
    return media if name == "test" else media / f"{name}_step_{step}"


def write_medium(
    medium: Table | ConfusionMatrix | Picture | Text, title: str, folder: Path, run_dir: Path
) -> dict[str, str]:
    """Write ``medium`` to ``folder`` unless it is a file already; returns its event entry."""
    folder.mkdir(parents=True, exist_ok=True)
    extra: dict[str, str] = {}
    if isinstance(medium, Picture):
        kind, file, extra = "picture", medium.file, {"caption": medium.caption}
    elif isinstance(medium, Text):
        kind, file = "text", folder / f"{title}.txt"
        write_text(medium.content, file)
    else:
        kind = "confusion_matrix" if isinstance(medium, ConfusionMatrix) else "table"
        file = folder / f"{title}.json"
        write_json(asdict(medium), file)
    return {"kind": kind, "file": file.relative_to(run_dir / "media").as_posix(), **extra}


def keep_events(file: Path, count: int) -> Iterator[dict[str, Any]]:
    """Yield the first ``count`` events of ``metrics.jsonl``, those up to the checkpoint.

    Then truncates the file, since later events will be computed again.

    Raises:
        ConfigError: if one of them is damaged.
    """
    if not file.exists():
        return
    num_bytes = 0
    for number, line in enumerate(islice(lines_in(file), count), start=1):
        num_bytes += len(line)
        yield parse_event(line, number, file)
    if num_bytes < file.stat().st_size:
        with writing(file), open(file, "r+b", opener=no_link) as opened:
            opened.truncate(num_bytes)


def read_events(file: Path) -> Iterator[dict[str, Any]]:
    """Yield all events of a ``metrics.jsonl``, except an unfinished last line.

    Raises:
        ConfigError: if the file is missing or damaged.
    """
    for number, line in enumerate(lines_in(file), start=1):
        if line.endswith(b"\n"):
            yield parse_event(line, number, file)


def lines_in(file: Path) -> Iterator[bytes]:
    try:
        yield from lines_of(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {file}: {reason(error)}") from error


def parse_event(line: bytes, number: int, file: Path) -> dict[str, Any]:
    try:
        event = parse_json(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise ConfigError(f"{file} is damaged in line {number}")
    return event

"""The files of a run directory: config.yaml, spec.json, metrics.jsonl, summary.json, media/."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from core.errors import ConfigError
from core.files import write_json, write_text
from core.job import Job
from data.spec_file import spec_content
from objectives.base import ConfusionMatrix, Picture, Table, Text
from trainer.loggers.writer import Writer


class RunFiles(Writer):
    """Writes them; each in one piece, but for ``metrics.jsonl``, which grows by lines.

    Args:
        config: the config as records may show it.
    """

    def __init__(self, config: dict[str, Any], job: Job) -> None:
        self.run_dir, self.config = job.path, config
        for name, content in job.composed.items():  # Hydra would write them too early
            (self.run_dir / ".hydra").mkdir(exist_ok=True)
            write_yaml(content, self.run_dir / ".hydra" / name)
        self.events = (self.run_dir / "metrics.jsonl").open("a", encoding="utf-8")

    def write_header(self, spec: Any, facts: dict[str, Any]) -> None:
        write_yaml(self.config, self.run_dir / "config.yaml")
        write_json(spec_content(spec), self.run_dir / "spec.json")

    def log_event(self, number: int, event: dict[str, Any]) -> None:
        try:
            self.events.write(json.dumps(event) + "\n")
            self.events.flush()
        except OSError as error:
            raise ConfigError(f"cannot write {self.events.name}: {error.strerror}") from error

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_json(summary, self.run_dir / "summary.json")

    def finalize(self, summary: dict[str, Any]) -> None:
        self.events.close()


def write_yaml(content: Any, file: Path) -> None:
    write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), file)


def media_folder(run_dir: Path, name: str, step: int) -> Path:
    """The test's files are in ``media/`` itself, an evaluation's in a folder of its step."""
    media = run_dir / "media"
    return media if name == "test" else media / f"{name}_step_{step}"


def write_medium(
    medium: Table | ConfusionMatrix | Picture | Text, title: str, folder: Path, run_dir: Path
) -> dict[str, str]:
    """Write what is not a file yet to ``folder``; the entry that says what and where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(medium, Picture):
        kind, file = "picture", medium.file
    elif isinstance(medium, Text):
        kind, file = "text", folder / f"{title}.txt"
        write_text(medium.content, file)
    else:
        kind = "confusion_matrix" if isinstance(medium, ConfusionMatrix) else "table"
        file = folder / f"{title}.json"
        write_json(asdict(medium), file)
    entry = {"kind": kind, "file": file.relative_to(run_dir / "media").as_posix()}
    return {**entry, "caption": medium.caption} if isinstance(medium, Picture) else entry


def keep_events(file: Path, count: int) -> list[dict[str, Any]]:
    """Cut ``metrics.jsonl`` back to its first ``count`` events: those the checkpoint knows of.

    Raises:
        ConfigError: one of them is damaged.
    """
    if not file.exists():
        return []
    lines = read_lines(file)
    events = parse_events(lines[:count], file)
    if len(lines) > count:
        write_text(b"".join(lines[:count]).decode(), file)
    return events


def read_events(file: Path) -> list[dict[str, Any]]:
    """All events of a ``metrics.jsonl``, but for a last line that a kill left unfinished.

    Raises:
        ConfigError: there is no such file, or it is damaged.
    """
    return parse_events([line for line in read_lines(file) if line.endswith(b"\n")], file)


def read_lines(file: Path) -> list[bytes]:
    try:
        return file.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error


def parse_events(lines: list[bytes], file: Path) -> list[dict[str, Any]]:
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
            if not isinstance(event, dict):
                raise ValueError
        except ValueError as error:
            raise ConfigError(f"{file} is damaged in line {number}") from error
        events.append(event)
    return events

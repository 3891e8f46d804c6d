"""What an objective has to show, as files of the run directory and entries of ``metrics.jsonl``."""

from dataclasses import asdict
from pathlib import Path

from core.files import write_json, write_text
from objectives.base import ConfusionMatrix, Picture, Table, Text


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

"""Files and texts of the command line as inputs of a model, by the kind of its data."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from core.errors import ConfigError
from data.decode import MAX_PIXELS
from data.table_csv import read_rows
from data.text_files import read_lines
from deploy.finished_run import FinishedRun
from deploy.images import image_files, read_image

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Sample:
    """One input.

    Attributes:
        name: in the answers' files.
        shown: before the answer on the terminal; empty: nothing.
        read: the raw tensors of one sample, and what a person should know of it, as the end of a
            sentence that begins with ``subject``; raises ConfigError.
    """

    name: str
    shown: str
    read: Callable[[], tuple[Tensors, list[str]]]
    subject: str = ""
    file: Path | None = field(default=None)


def images(run: FinishedRun, options: argparse.Namespace) -> Iterator[Sample]:
    """Every image file, and those below folders."""
    max_pixels = run.config["data"].get("max_pixels", MAX_PIXELS)
    for file in image_files(options.inputs):

        def read(file: Path = file) -> tuple[Tensors, list[str]]:
            image, notes = read_image(file, run.spec, options.invert, max_pixels)
            return (image,), [f": {note}" for note in notes]

        yield Sample(str(file), str(file), read, str(file), file)


def texts(run: FinishedRun, options: argparse.Namespace) -> Iterator[Sample]:
    """Texts of the command line, of a CSV file or of another file's lines."""
    found = {text: text for text in options.text or ()}  # by what each is called
    if not all(text.strip() for text in found):
        raise ConfigError("--text is empty")
    data = run.config["data"]
    for file in options.inputs:
        lines = read_lines(file, data.get("text_column") or "text", data.get("delimiter"))
        found |= {f"{file}:{line}": text for line, text in lines}
    for name, text in found.items():

        def read(text: str = text) -> tuple[Tensors, list[str]]:
            beyond = run.spec.tokens_beyond(text)
            note = (
                f" is longer than the {run.spec.max_length} tokens of data.max_length: its last "
                f"{beyond} are not read"
            )
            return run.spec.encode([text]), [note] if beyond else []

        is_alone = name == text and len(found) == 1
        yield Sample(name, "" if is_alone else name, read, "the text" if name == text else name)


def rows(run: FinishedRun, options: argparse.Namespace) -> Iterator[Sample]:
    """Every row of CSV files that have the columns of the training table."""
    for file in options.inputs:
        columns, delimiter = run.spec.columns, run.config["data"].get("delimiter")
        for line, row, notes in read_rows(file, columns, delimiter):

            def read(row: Tensor = row, notes: list[str] = notes) -> tuple[Tensors, list[str]]:
                return (row[None],), notes

            yield Sample(f"{file}:{line}", f"{file}:{line}", read, str(file))


@dataclass(frozen=True)
class Inputs:
    """What a kind of data is called, and how it is given to ``predict.py``."""

    noun: str
    advice: str
    samples: Callable[[FinishedRun, argparse.Namespace], Iterator[Sample]]
    tasks: tuple[str, ...]
    options: tuple[str, ...] = ()


# by the kind of the data
INPUTS = {
    "image": Inputs(
        noun="images",
        advice="give it image files, a folder, --export or --quantize",
        samples=images,
        tasks=("inputs", "export", "quantize"),
        options=("invert",),
    ),
    "table": Inputs(
        noun="rows of tables",
        advice="give it CSV files, --export or --quantize",
        samples=rows,
        tasks=("inputs", "export", "quantize"),
    ),
    "text_classification": Inputs(
        noun="texts",
        advice="use --text or give it text files",
        samples=texts,
        tasks=("inputs", "text"),
    ),
}

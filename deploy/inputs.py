"""Reads the files and texts of the command line as model inputs, by kind of data."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from core.errors import ConfigError
from data.decode import MAX_PIXELS
from data.table_csv import read_rows
from data.text_files import read_lines
from deploy.finished_run import FinishedRun
from deploy.images import image_files, read_image


@dataclass(frozen=True)
class Sample:
    """One input.

    Attributes:
        name: name in the --json and --csv files.
        shown: prefix of the answer on the terminal; may be empty.
        tensors: raw model inputs, each ``(1, ...)``.
        subject, notes: each ``subject + note`` is a sentence for the user.
        file: path, for images.
    """

    name: str
    shown: str
    tensors: tuple[Tensor, ...]
    subject: str
    notes: list[str]
    file: Path | None = None


Samples = Iterator[Sample | ConfigError]  # an error for an input that cannot be read


def images(run: FinishedRun, options: argparse.Namespace) -> Samples:
    """The image files given, and those below the folders given."""
    max_pixels = run.config["data"].get("max_pixels", MAX_PIXELS)
    for file in image_files(options.inputs):
        try:
            image, notes = read_image(file, run.spec, options.invert, max_pixels)
        except ConfigError as error:
            yield error
        else:
            name = str(file)
            yield Sample(name, name, (image,), name, [f": {note}" for note in notes], file)


def texts(run: FinishedRun, options: argparse.Namespace) -> Samples:
    """Texts given by ``--text``, in a column of CSV files, or as lines of other files."""
    named_texts = {text: text for text in options.text or ()}  # name -> text
    if not all(text.strip() for text in named_texts):
        raise ConfigError("--text is empty")
    data = run.config["data"]
    for file in options.inputs:
        lines = read_lines(file, data.get("text_column") or "text", data.get("delimiter"))
        named_texts |= {f"{file}:{line}": text for line, text in lines}
    for name, text in named_texts.items():
        num_ignored = run.spec.tokens_beyond(text)
        note = (
            f" is longer than data.max_length={run.spec.max_length} tokens: the last "
            f"{num_ignored} are ignored"
        )
        shown = "" if name == text and len(named_texts) == 1 else name
        subject = "the text" if name == text else name
        yield Sample(name, shown, run.spec.encode([text]), subject, [note] if num_ignored else [])


def rows(run: FinishedRun, options: argparse.Namespace) -> Samples:
    """The rows of CSV files with the columns of the training table."""
    for file in options.inputs:
        columns, delimiter = run.spec.columns, run.config["data"].get("delimiter")
        for line, row, notes in read_rows(file, columns, delimiter):
            name = f"{file}:{line}"
            yield Sample(name, name, (row[None],), str(file), notes)


@dataclass(frozen=True)
class Inputs:
    """How ``predict.py`` takes one kind of data."""

    noun: str
    advice: str
    samples: Callable[[FinishedRun, argparse.Namespace], Samples]
    tasks: tuple[str, ...]
    options: tuple[str, ...] = ()


# spec.kind -> inputs
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

"""Prefix the console lines of concurrent jobs with their names."""

import io
import os
import sys
from typing import TextIO

VARIABLE = "TRAIN_LINE_NAME"  # environment: the name, for child processes of a job


class NamedLines(io.TextIOBase):
    """A stream that writes only whole lines, each prefixed; it never counts as a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.name, self.rest = stream, "", ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        if lines := [line for line in lines if line.strip()]:
            self.stream.write("".join(f"[{self.name}] {line}\n" for line in lines))
            self.stream.flush()
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding


def name_lines(name: str) -> None:
    """Prefix every line of this process, and of those it starts from now on, with ``[name]``."""
    os.environ[VARIABLE] = name
    sys.stdout, sys.stderr = named(sys.stdout, name), named(sys.stderr, name)


def named(stream: TextIO, name: str) -> NamedLines:
    lines = stream if isinstance(stream, NamedLines) else NamedLines(stream)
    lines.name = name
    return lines

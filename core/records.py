"""Read untrusted records: plain data of bounded size and depth.

All JSON and YAML of run directories is read here. Content that this repository never writes is an
error: a device in place of a file, YAML aliases, numbers of hundreds of digits.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import yaml

MAX_JSON_BYTES, MAX_YAML_BYTES, MAX_LINE_BYTES = 64 << 20, 4 << 20, 1 << 20
MAX_DEPTH = 40
MAX_NUMBER = 2**64
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where libyaml is installed


def read_record(file: Path) -> Any:
    """Read a ``.json`` or ``.yaml`` file.

    Raises:
        OSError: if it does not exist, cannot be read, or is not a regular file.
        ValueError: if it is damaged, too large or nested too deep.
    """
    is_json = file.suffix == ".json"
    limit = MAX_JSON_BYTES if is_json else MAX_YAML_BYTES
    with open_record(file) as opened:
        content = opened.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"larger than {limit >> 20} MiB")
    text = content.decode()
    return parse_json(text) if is_json else parse_yaml(text)


def open_record(file: Path) -> IO[bytes]:
    """Open a regular file; reading a FIFO or a device might never end."""
    opened = open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
        opened.close()
        raise OSError(errno.EINVAL, "is not a regular file", str(file))
    return opened


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; raises ``ValueError`` if it is invalid or exceeds a record's bounds."""
    try:
        return bounded(json.loads(text))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def parse_yaml(text: str) -> Any:
    depth = 0
    try:
        for event in yaml.parse(text, YAML_LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("has aliases, which may stand for any amount of data")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError("nested too deep")
        return bounded(yaml.load(text, YAML_LOADER))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from error


def bounded(value: Any, depth: int = 0) -> Any:
    """Return the value unchanged, after checking its bounds.

    Raises:
        ValueError: if it is nested too deep, or has a number too large or a key that is no string.
    """
    if isinstance(value, dict | list) and depth > MAX_DEPTH:
        raise ValueError("nested too deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r:.40} is not a string")
            bounded(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            bounded(item, depth + 1)
    elif isinstance(value, int) and abs(value) >= MAX_NUMBER:
        raise ValueError("has a number that is too large")
    return value


def lines_of(file: Path) -> Iterator[bytes]:
    """Iterate over the lines of a file that may be larger than the memory.

    Raises:
        OSError: as :func:`read_record`.
        ValueError: if a line is longer than any line of a record.
    """
    with open_record(file) as opened:
        while line := opened.readline(MAX_LINE_BYTES + 1):
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(f"has a line of more than {MAX_LINE_BYTES >> 20} MiB")
            yield line


def printable(text: str) -> str:
    """Escape control characters and invalid Unicode, for output on a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode()
                   for c in text)  # fmt: skip


def showable(value: Any) -> Any:
    """Make all strings of a record printable, as they may contain terminal escape sequences."""
    if isinstance(value, dict):
        return {printable(key): showable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [showable(item) for item in value]
    return printable(value) if isinstance(value, str) else value

"""Reading records that anybody may have written: plain data, of bounded size and depth.

JSON and YAML of run directories are read here alone. What a program of this repository never
writes is an error: a device in place of a file, YAML's aliases, numbers of hundreds of digits.
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
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where libyaml is there


def read_record(file: Path) -> Any:
    """The content of a ``.json`` or ``.yaml`` file.

    Raises:
        OSError: there is none, it cannot be read, or it is no regular file.
        ValueError: it is damaged, too large or too deep.
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
    """Open a regular file; a FIFO or a device would not end."""
    opened = open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
        opened.close()
        raise OSError(errno.EINVAL, "is no regular file", str(file))
    return opened


def parse_json(text: str | bytes) -> Any:
    """Raises: ValueError: it is no JSON, or more than a record has."""
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
    """The value as it is.

    Raises:
        ValueError: it is deeper than records are, has a number that no record has, or a key that
            is no text.
    """
    if isinstance(value, dict | list) and depth > MAX_DEPTH:
        raise ValueError("nested too deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r:.40} is no text")
            bounded(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            bounded(item, depth + 1)
    elif isinstance(value, int) and abs(value) >= MAX_NUMBER:
        raise ValueError("has a number that is too large")
    return value


def lines_of(file: Path) -> Iterator[bytes]:
    """The lines of a file, one after the other: it may be larger than the memory.

    Raises:
        OSError: as :func:`read_record`.
        ValueError: a line is longer than any of a record.
    """
    with open_record(file) as opened:
        while line := opened.readline(MAX_LINE_BYTES + 1):
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(f"has a line of more than {MAX_LINE_BYTES >> 20} MiB")
            yield line


def printable(text: str) -> str:
    """Text for a terminal: what would steer it, and what is no Unicode, is shown and not obeyed."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode()
                   for c in text)  # fmt: skip


def showable(value: Any) -> Any:
    """The value with all of its text printable: a record may hold what steers a terminal."""
    if isinstance(value, dict):
        return {printable(key): showable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [showable(item) for item in value]
    return printable(value) if isinstance(value, str) else value

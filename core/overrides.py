"""Overrides as the command line takes them."""

import re
import shlex
from collections.abc import Iterable
from typing import Any


def text(value: Any) -> str:
    """A value as the command line takes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(text(item) for item in value)}]"
    if isinstance(value, str) and not re.fullmatch(r"[\w./:+-]+", value, re.ASCII):
        return "'" + value.replace("'", "\\'") + "'"
    return str(value)


def continuation(program: str, overrides: Iterable[str], *added: str) -> str:
    """The command that goes on with what ``overrides`` have begun, to be pasted into a shell."""
    keys = ("resume", *(word.partition("=")[0] for word in added))
    kept = [word for word in overrides if word.lstrip("+").partition("=")[0] not in keys]
    return f"{program} {' '.join(map(quoted, [*kept, *added]))}"


def quoted(word: str) -> str:
    """A word as a shell takes it: quotes of its own stay readable within double quotes."""
    if "'" in word and not re.search(r'["$`\\!]', word):
        return f'"{word}"'
    return shlex.quote(word)

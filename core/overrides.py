"""Format values, overrides and commands for the command line."""

import re
import shlex
from collections.abc import Iterable
from typing import Any


def text(value: Any) -> str:
    """A value in Hydra's override grammar."""
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
    """The shell command that continues the run or sweep of ``overrides``."""
    keys = ("resume", *(word.partition("=")[0] for word in added))
    kept = [word for word in overrides if word.lstrip("+").partition("=")[0] not in keys]
    return f"{program} {' '.join(map(quoted, [*kept, *added]))}"


def quoted(word: str) -> str:
    """A word quoted for the shell; in double quotes if it contains single ones, for readability."""
    if "'" in word and not re.search(r'["$`\\!]', word):
        return f'"{word}"'
    return shlex.quote(word)

"""Keep secrets out of everything a run writes: files, logs and W&B.

A secret is the value of a setting or environment variable whose name says so, or a text in the
form of a well-known kind of key.
"""

import os
import re
from pathlib import Path
from typing import Any

import yaml

REDACTED = "<redacted>"
SECRET_NAME = re.compile(
    r"(^|_)(api_?key|\w+_key|token)$|_(auth|pat|pass|pwd)$"
    r"|(^|_)(password|passwd|passphrase|secrets?|credentials?)(_|$)",
    re.IGNORECASE,
)
SECRET_TEXT = re.compile(
    r"\b(?:sk-|hf_|gh[pousr]_|github_pat_|glpat-|xox[abp]-|AKIA|wandb_v1_)[A-Za-z0-9_\-]{12,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user:password@host
)
ASSIGNED = re.compile(r"\b(\w+)=(\"[^\"]*\"|'[^']*'|[^\s,\]}]+)")
SHORTEST = 8  # characters; a shorter value of an environment variable would match ordinary words


def redacted(value: Any, name: str = "") -> Any:
    """``value`` (mappings, lists, primitives) without secrets; ``name`` is the key it stands at."""
    if isinstance(value, dict):
        return {key: redacted(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redacted(item, name) for item in value)
    if isinstance(value, str) and name != "_target_":  # code, which a word of it must not break
        return REDACTED if value and SECRET_NAME.search(name) else redacted_text(value)
    return value


def redacted_text(text: str) -> str:
    """``text`` without the secrets that occur in it; not within words or dotted names."""
    for secret in secrets_of_environment():
        text = re.sub(rf"(?<!\w)(?<!\w\.){re.escape(secret)}(?!\.?\w)", REDACTED, text)
    text = ASSIGNED.sub(without_value, text)
    return SECRET_TEXT.sub(REDACTED, text)


def without_value(match: re.Match[str]) -> str:
    """``api_key=...`` as it may be shown."""
    name = match.group(1)
    return f"{name}={REDACTED}" if SECRET_NAME.search(name) else match.group()


def secrets_of_environment() -> list[str]:
    """Values of the environment variables that look like secrets, longest first."""
    found = {
        value
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= SHORTEST and not os.path.exists(value)
    }
    return sorted(found, key=len, reverse=True)


def redact_composed(folder: Path) -> None:
    """Clean what Hydra has written before the program sees the config."""
    for file in folder.glob("*.yaml"):
        content = yaml.safe_load(file.read_text())
        clean = redacted(content)
        if clean != content:
            file.write_text(yaml.safe_dump(clean, sort_keys=False, allow_unicode=True))

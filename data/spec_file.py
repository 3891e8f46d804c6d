"""The data spec of a run, saved next to its weights as ``spec.json``.

With it a finished run can be used without its data set. The file names the class of the spec, a
dataclass with a ``kind`` in one of the packages that a config may name.
"""

import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core.errors import ConfigError, reason
from core.instantiate import resolve
from core.records import read_record


def spec_content(spec: Any) -> dict[str, Any]:
    """The spec as JSON-ready data."""
    name = f"{type(spec).__module__}.{type(spec).__qualname__}"
    return {"class": name, "kind": spec.kind, **asdict(spec)}


def read_spec(file: Path) -> Any:
    """Read the spec of a run directory.

    Raises:
        ConfigError: if the file is missing or damaged, or names a class that is not a spec.
    """
    try:
        content = read_record(file)
        name = content["class"]
    except FileNotFoundError:
        raise ConfigError(f"{file.parent} is not a run directory: it has no {file.name}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is damaged: {reason(error)}") from error
    spec_class = resolve(name, f"{file}: class")
    if not is_dataclass(spec_class) or not hasattr(spec_class, "kind"):
        raise ConfigError(f"{file}: {name} is not a class of data specs")
    try:
        return TypeAdapter(spec_class).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        entry = ".".join(map(str, first["loc"])) or "its content"
        raise ConfigError(f"{file} is damaged: {entry}: {first['msg']}") from error

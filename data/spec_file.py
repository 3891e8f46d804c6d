"""What the data of a run looked like, kept beside its weights: ``spec.json``.

With it a finished run can be used without its data set. The file names the class of the spec, which
is a dataclass of the package ``data``; nothing else that it names is imported.
"""

import importlib
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core.errors import ConfigError, reason

# run directories of earlier versions name a kind in place of a class
CLASS_OF_KIND = {
    "image": "data.splits.ImageSpec",
    "text": "data.text_spec.TextSpec",
    "text_classification": "data.text_classification_spec.TextClassificationSpec",
}


def spec_content(spec: Any) -> dict[str, Any]:
    """The spec as JSON-ready data."""
    name = f"{type(spec).__module__}.{type(spec).__qualname__}"
    return {"class": name, "kind": spec.kind, **asdict(spec)}


def read_spec(file: Path) -> Any:
    """The spec that a run directory holds; entries that its class does not have are passed over.

    Raises:
        ConfigError: the file is missing or damaged, or names a class that is no spec.
    """
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text)
        name = content.get("class") or CLASS_OF_KIND[content["kind"]]
    except FileNotFoundError:
        raise ConfigError(f"{file.parent} is not a run directory: it has no {file.name}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{file} is damaged: {reason(error)}") from error
    spec_class = class_named(name, file)
    try:
        return TypeAdapter(spec_class).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        entry = ".".join(map(str, first["loc"])) or "its content"
        raise ConfigError(f"{file} is damaged: {entry}: {first['msg']}") from error


def class_named(name: Any, file: Path) -> Any:
    """The dataclass of the package ``data`` called ``name``."""
    module_name, _, class_name = str(name).rpartition(".")
    refusal = ConfigError(f"{file}: {name} is no class of data specs")
    if not module_name.startswith("data."):
        raise refusal
    try:
        found = getattr(importlib.import_module(module_name), class_name, None)
    except (ImportError, ValueError) as error:
        raise refusal from error
    is_spec = is_dataclass(found) and isinstance(found, type) and hasattr(found, "kind")
    if not is_spec or found.__module__ != module_name:
        raise refusal
    return found

"""What the data of a run looked like, kept beside its weights: ``spec.json``.

With it a finished run can be used without its data set.
"""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

from core.errors import ConfigError
from core.schema import describe, matches
from data.splits import ImageSpec
from data.text_classification_spec import TextClassificationSpec
from data.text_spec import TextSpec

SPECS = (ImageSpec, TextSpec, TextClassificationSpec)
KINDS: dict[str, type] = {spec.kind: spec for spec in SPECS}


def spec_content(spec: Any) -> dict[str, Any]:
    """The spec as JSON-ready data."""
    return {"kind": spec.kind, **asdict(spec)}


def read_spec(file: Path) -> Any:
    """The spec that a run directory holds.

    Raises:
        ConfigError: the file is missing, damaged or of an unknown kind.
    """
    try:
        content = json.loads(file.read_text())
        spec_class = KINDS[content.pop("kind")]
        known = {field.name for field in fields(spec_class)}
        values = {key: as_tuple(value) for key, value in content.items() if key in known}
        spec = spec_class(**values)
    except FileNotFoundError:
        raise ConfigError(f"{file.parent} is not a run directory: it has no {file.name}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} is damaged: {error}") from error
    for name, hint in get_type_hints(spec_class).items():
        if name in known and not matches(getattr(spec, name), hint):
            raise ConfigError(f"{file} is damaged: {name} should be {describe(hint)}")
    return spec


def as_tuple(value: Any) -> Any:
    return tuple(as_tuple(item) for item in value) if isinstance(value, list) else value

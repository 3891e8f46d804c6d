"""Values from the environment, ``${oc.env:NAME}``: used by a run, but never recorded.

Records show the interpolation in place of the value. Nothing is guessed from names: a value typed
as a setting is recorded as typed.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import Container, DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from core.errors import ConfigError
from core.same_run import flat

VARIABLE = re.compile(r"\$\{oc\.env:\s*(\w+)")
FROM_ENVIRONMENT = re.compile(r"\$\{oc\.(env|decode):")
WHERE_IT_WORKS = (
    "${oc.env:...} works alone, in a text and in ${oc.decode:...}, but not in other interpolations"
)
SHORTEST = 6  # characters; shorter values are not redacted, as they occur in ordinary words


def recordable(cfg: DictConfig, config: dict[str, Any]) -> dict[str, Any]:
    """Resolve the config, but keep ``${oc.env:NAME}``.

    It is also kept inside longer strings and in settings that refer to it.

    Args:
        config: ``cfg`` with every interpolation resolved.

    Raises:
        ConfigError: if the values could not be restored from the record.
    """
    try:
        with environment_unresolved():
            content = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {WHERE_IT_WORKS}") from error
    assert isinstance(content, dict)
    record = {str(key): value for key, value in content.items()}
    resolved = flat(config)
    for key, value in flat(record).items():
        if repr(from_environment(value, key)) != repr(resolved.get(key)):  # repr: NaN != NaN
            raise ConfigError(f"{key}: {WHERE_IT_WORKS}")
    return record


@contextmanager
def environment_unresolved() -> Iterator[None]:
    """Make ``oc.env`` and ``oc.decode`` resolve to their own interpolation."""

    def env(key: str, *default: Any) -> str:
        return f"${{oc.env:{', '.join([key, *map(json.dumps, default)])}}}"

    def decode(expr: Any, _parent_: Container, _node_: Node) -> Any:
        if isinstance(expr, str) and VARIABLE.search(expr):
            return f"${{oc.decode:{json.dumps(expr)}}}"
        return oc.decode(expr, _parent_, _node_)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)
    OmegaConf.register_new_resolver("oc.decode", decode, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
        OmegaConf.register_new_resolver("oc.decode", oc.decode, replace=True)


def settings_from_environment(config: dict[str, Any]) -> list[str]:
    """Dotted keys of a recordable config whose values come from the environment."""
    return [key for key, value in flat(config).items() if FROM_ENVIRONMENT.search(str(value))]


def from_environment(value: Any, key: str) -> Any:
    """Fill this process's environment into a recorded setting; other values are unchanged.

    Args:
        value: mappings, lists and primitives.
        key: its dotted name, for messages.

    Raises:
        ConfigError: if a variable is not set.
    """
    if isinstance(value, dict):
        return {name: from_environment(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [from_environment(item, f"{key}.{index}") for index, item in enumerate(value)]
    if not isinstance(value, str) or not FROM_ENVIRONMENT.search(value):
        return value
    try:
        return OmegaConf.create({"value": value})["value"]
    except OmegaConfBaseException as error:
        names = ", ".join(VARIABLE.findall(value))
        raise ConfigError(f"{key}={value}: set the environment variable {names}") from error


def without_environment(text: str, config: Any) -> str:
    """Redact the values that ``config`` takes from the environment."""
    for name in VARIABLE.findall(str(config)):
        value = os.environ.get(name, "")
        if len(value) >= SHORTEST:
            text = text.replace(value, f"${{oc.env:{name}}}")
    return text

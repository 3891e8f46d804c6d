"""What Hydra itself may build and set: its own plugins, the callbacks of this program.

Hydra instantiates the launcher, the sweeper, callbacks and logging handlers of the config before
the program runs, so a stranger's config or command line could name any function there. Hydra's own
blocklist is no security boundary; here everything is refused that is not listed. It would also set
environment variables of the config's choice, and there are some that make git or Python run code.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import hydra._internal.instantiate._instantiate2 as instantiation
from hydra._internal.logging_config import HydraDictConfigurator
from hydra.core import utils

from core.allowlist import in_any
from core.errors import ConfigError

PLUGINS = ("hydra._internal.core_plugins", "hydra_plugins", "trainer.sweep", "study.lr_range")
LOGGING = ("logging", "colorlog")

_resolve_target = instantiation._resolve_target
_resolve_logging = HydraDictConfigurator.resolve


def resolve_target(target: Any, full_key: str) -> Callable[..., Any]:
    """Hydra's own, for classes of ``PLUGINS`` alone; nothing else is even imported."""
    refusal = ConfigError(f"{full_key or 'hydra'}: {target} is not allowed: it is no Hydra plugin")
    if isinstance(target, str) and not in_any(target, PLUGINS):
        raise refusal
    found = _resolve_target(target, full_key)
    if not (inspect.isclass(found) and in_any(found.__module__, PLUGINS)):
        raise refusal
    return found


def resolve_logging(self: HydraDictConfigurator, name: str) -> Any:
    """A handler, formatter or filter class of ``LOGGING``, or a stream such as ``sys.stdout``."""
    refusal = ConfigError(f"hydra logging: {name} is not allowed: it is no logging class")
    if not in_any(name, (*LOGGING, "sys.stdout", "sys.stderr")):
        raise refusal
    found = _resolve_logging(self, name)
    if callable(found) and not (inspect.isclass(found) and in_any(found.__module__, LOGGING)):
        raise refusal
    return found


def keep_environment(env: dict[str, str]) -> AbstractContextManager[None]:
    """In place of Hydra's ``env_override``; ``hydra.job.env_copy`` ends up in ``env_set``, too."""
    if env:
        raise ConfigError("hydra.job.env_set is not allowed: set variables in the shell")
    return nullcontext()


def guard() -> None:
    """From now on, in this process."""
    instantiation._resolve_target = resolve_target
    HydraDictConfigurator.resolve = resolve_logging  # type: ignore[method-assign, assignment]
    utils.env_override = keep_environment  # type: ignore[assignment]

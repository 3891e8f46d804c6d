"""Instantiate config nodes, restricted to an allowlist of targets.

``_target_: package.module.Name`` may name

- a class of the project's packages, or of the listed libraries;
- a function of the project's packages that is annotated to return one of ``PARTS``, or not
  annotated at all (the project's own helpers, such as one that writes files, are annotated);
- a module, optimizer or map-style data set of any package, if a file of the project's packages
  imports it, by its name there.

The object that the name resolves to is checked, because a name such as ``data.cache.os.system``
begins in an allowed package and ends outside of it. Hydra's own blocklist is, in its maintainers'
words, no security boundary.

The environment variable ``TRAIN_PACKAGES=mylab,prodigyopt`` adds packages of the user's own. It
comes from the user's shell and never from a config: opening a run builds only what the user trusts.
"""

import importlib
import inspect
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Dataset, IterableDataset

from core.errors import ConfigError, reason
from core.schema import check_value

# no library unpickles code from a weights file, unless the user's shell allows it
os.environ.setdefault("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")

PROJECT_PACKAGES = ("models", "data", "optim", "objectives", "trainer.loggers")
LIBRARIES = ("torch.optim", "torch.nn", "torchvision.transforms.v2", "timm.optim", "schedulefree")


class Part:
    """Base class of what a config's functions may return, besides modules and optimizers."""


IMPORTABLE = (Part, nn.Module, Optimizer, Dataset)
PARTS = (*IMPORTABLE, float)  # float: a schedule returns the learning rate
# config node -> the package of its classes
FOLDERS = {
    "model": "models",
    "data": "data",
    "optimizer": "optim",
    "scheduler": "optim",
    "objective": "objectives",
    "loggers": "trainer.loggers",
}
RESERVED = ("_target_", "_partial_")
REFUSALS = (TypeError, ValueError, LookupError, ArithmeticError, AssertionError, RuntimeError)


def instantiate(
    node: Any,
    where: str,
    later: Sequence[str] = (),
    within: Callable[..., Any] | None = None,
    **injected: Any,
) -> Any:
    """Build what ``node`` describes; ``injected`` arguments come from the program.

    Mappings with ``_target_`` become objects, innermost first, or a ``functools.partial`` with
    ``_partial_: true``; everything else is returned unchanged.

    Args:
        node: plain data (mappings, lists, primitives), as in the resolved config.
        where: dotted name of the node in the config, for messages.
        later: arguments that the program gives when it calls a partial.
        within: callable that takes further settings of this node, to be suggested for a typo.

    Raises:
        ConfigError: if a target is not allowed, a setting is unknown, or a value is refused.
    """
    if isinstance(node, list):
        return [instantiate(item, f"{where}[{i}]") for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    built = {
        key: value if key in RESERVED else instantiate(value, f"{where}.{key}")
        for key, value in node.items()
    }
    if "_target_" not in node:
        return built
    target = resolve(built.pop("_target_"), f"{where}._target_")
    is_partial = built.pop("_partial_", False)
    check_arguments(target, built, (*injected, *later), where, within)
    if is_partial:
        return partial(target, **built, **injected)
    try:
        return target(**built, **injected)
    except ConfigError:
        raise
    except REFUSALS as error:
        raise ConfigError(
            f"{where}: {target.__name__} refused its settings: {reason(error)}"
        ) from error


def is_within(module_name: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of ``packages`` or inside one."""
    return any(module_name == name or module_name.startswith(name + ".") for name in packages)


def trusted_packages() -> tuple[str, ...]:
    """The project's packages, and those that the user names in ``TRAIN_PACKAGES``."""
    named = os.environ.get("TRAIN_PACKAGES", "").split(",")
    return PROJECT_PACKAGES + tuple(name.strip() for name in named if name.strip())


def resolve(name: Any, where: str) -> Callable[..., Any]:
    """Import the class or function ``name``, if a config may name it."""
    packages = trusted_packages()
    module_name, _, attribute = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    if not is_within(module_name, packages + LIBRARIES) or attribute.startswith("_"):
        raise not_allowed(name, where, module_name.partition(".")[0], attribute)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise ConfigError(
                f"{where}={name} needs the package {error.name}: pip install {error.name}"
            ) from error
        raise ConfigError(f"{where}={name}: there is no module {module_name}") from error
    target = getattr(module, attribute, None)
    if target is None:
        nearest = get_close_matches(attribute, vars(module), n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"{where}={name}: {module_name} has no {attribute}{hint}")
    defined_in = getattr(target, "__module__", None) or ""
    made = target if inspect.isclass(target) else return_type(target)
    is_own = is_within(defined_in, packages)
    if inspect.isclass(target) and (is_own or is_within(defined_in, LIBRARIES)):
        return target
    if is_own and (made is inspect.Parameter.empty or is_one_of(made, PARTS)):
        return target
    if is_within(module_name, packages) and is_one_of(made, IMPORTABLE):
        return target
    if is_own:
        raise ConfigError(
            f"{where}={name} is not allowed: it should be a class, or a function that returns "
            f"Splits, a Module, an Optimizer, a Dataset or a float, not {shown(made)}"
        )
    raise not_allowed(name, where, defined_in.partition(".")[0], attribute)


def return_type(target: Any) -> Any:
    """A function's return annotation; ``inspect.Parameter.empty`` if it has none."""
    if not inspect.isfunction(target):
        return None
    try:
        return get_type_hints(target).get("return", inspect.Parameter.empty)
    except NameError:  # an annotation imported for type checkers only
        return None


def is_one_of(made: Any, kinds: tuple[type, ...]) -> bool:
    """Whether it is a subclass of ``kinds``, and no iterable data set: some run shell commands."""
    return (
        inspect.isclass(made) and issubclass(made, kinds) and not issubclass(made, IterableDataset)
    )


def shown(annotation: Any) -> str:
    return getattr(annotation, "__name__", str(annotation))


def not_allowed(name: Any, where: str, package: str, attribute: str) -> ConfigError:
    """The error for a target defined in ``package``, with the ways to allow it."""
    folder = next((FOLDERS[word] for word in where.split(".") if word in FOLDERS), "models")
    imported = f"{folder}.FILE.{attribute or 'NAME'}"
    return ConfigError(
        f"{where}={name} is not allowed: it is outside of "
        f"{', '.join(trusted_packages() + LIBRARIES)}; import it in a file of {folder}/ and name "
        f"it there ({where}={imported}) if it is a Module, an Optimizer or a Dataset, wrap it in a "
        f"function there, or trust its whole package for one command: "
        f"TRAIN_PACKAGES={package or 'PACKAGE'} python ..."
    )


def check_arguments(
    target: Callable[..., Any],
    settings: dict[str, Any],
    injected: Collection[str],
    where: str,
    within: Callable[..., Any] | None = None,
) -> None:
    """Refuse unknown settings, with the nearest known one, and values of a wrong type.

    Whole numbers written as floats, such as 1e3, become integers in ``settings`` where an argument
    is annotated ``int`` or ``int | None``. Arguments annotated ``Annotated[float, Field(ge=0)]`` or
    ``Literal["a", "b"]`` are checked by pydantic; other metadata of ``Annotated``, and types that
    pydantic does not know, are left to other tools.
    """
    parameters = inspect.signature(target).parameters
    called = inspect.signature(target, follow_wrapped=False).parameters  # a decorator's, if any
    takes_any = any(p.kind is p.VAR_KEYWORD for p in (*parameters.values(), *called.values()))
    known = [name for name in parameters if name not in injected]
    if within is not None:
        known += [
            p.name for p in inspect.signature(within).parameters.values() if p.kind != p.VAR_KEYWORD
        ]
    unknown = [key for key in settings if key not in parameters and not takes_any]
    if unknown:
        nearest = get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {where}.{nearest[0]}?" if nearest else f"it has {', '.join(known)}"
        # Hydra cannot delete a null, so it gets a value first
        removal = " ".join(
            f"{where}.{key}=0 ~{where}.{key}" if settings[key] is None else f"~{where}.{key}"
            for key in unknown
        )
        name = (within or target).__name__
        raise ConfigError(
            f"{where}.{unknown[0]}: {name} has no such setting; {hint}; to drop a setting that a "
            f"recipe or option made for another _target_, add {removal}"
        )
    for key, value in settings.items():
        if key in injected:
            raise ConfigError(f"{where}.{key} is set by the program, not by the config")
        annotation = parameters[key].annotation if key in parameters else inspect.Parameter.empty
        origin = get_origin(annotation)
        kind = get_args(annotation)[0] if origin is Annotated else annotation
        is_number = kind in (int, float)
        if is_number and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(f"{where}.{key}={value} should be a number")
        if kind is int and value % 1 != 0:  # also nan and inf
            raise ConfigError(f"{where}.{key}={value} should be a whole number")
        has_field = any(isinstance(entry, FieldInfo) for entry in get_args(annotation))
        if origin is Literal or has_field:
            with suppress(PydanticUserError):  # a type that pydantic does not know
                check_value(annotation, value, f"{where}.{key}")
        is_count = kind is int or set(get_args(kind)) == {int, NoneType}
        if is_count and isinstance(value, float) and value.is_integer():
            settings[key] = int(value)

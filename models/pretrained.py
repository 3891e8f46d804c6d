"""Locates a pretrained model: in a folder, a package, or on the Hugging Face hub."""

import importlib.util
from pathlib import Path
from typing import Any

from core.errors import ConfigError

PACKAGE = "package:"


def locate(reference: Any, where: str) -> str:
    """Resolve ``reference`` to what ``from_pretrained`` of ``transformers`` accepts.

    Args:
        reference: a folder; ``package:NAME/FOLDER``, a folder inside the installed package NAME; or
            a model's id on the hub, which is downloaded once.
        where: dotted name of the setting, for messages.

    Raises:
        ConfigError: if the package is not installed, or there is no such folder.
    """
    if not isinstance(reference, str) or not reference:
        raise ConfigError(
            f"{where}={reference} should be a folder, {PACKAGE}NAME/FOLDER or the id of a model on "
            "the Hugging Face hub"
        )
    if not reference.startswith(PACKAGE):
        is_path = reference.startswith((".", "/", "~"))
        folder = Path(reference).expanduser()
        if is_path and not folder.is_dir():
            raise ConfigError(f"{where}={reference}: there is no such folder")
        return str(folder) if folder.is_dir() else reference
    name, _, inside = reference.removeprefix(PACKAGE).partition("/")
    # located without importing the package, which may import much else
    package = importlib.util.find_spec(name) if name.isidentifier() else None
    if package is None or not package.submodule_search_locations:
        raise ConfigError(
            f"{where}={reference} needs the package {name}: pip install {name.replace('_', '-')}"
        )
    folder = Path(package.submodule_search_locations[0]) / inside
    if not folder.is_dir():
        raise ConfigError(f"{where}={reference}: the package {name} has no folder {inside}")
    return str(folder)

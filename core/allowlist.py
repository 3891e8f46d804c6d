"""How a list of allowed modules is read."""


def in_any(module_name: str, rooms: tuple[str, ...]) -> bool:
    """Whether a module is one of ``rooms`` or within one."""
    return any(module_name == room or module_name.startswith(room + ".") for room in rooms)

"""Text files as they are read everywhere."""

from pathlib import Path

from core.errors import ConfigError, reason

BYTE_ORDER_MARK = "\ufeff"


def read_text(file: Path, where: str) -> str:
    r"""The text of a UTF-8 file, with ``\n`` for every line break and without byte-order marks.

    Joined files have a mark wherever one of them began.

    Args:
        where: the setting and the file, for messages.

    Raises:
        ConfigError: the file cannot be read, or is no UTF-8 text.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{where}: {reason(error)}") from error
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ConfigError(
            f"{where} is not UTF-8 text: byte {error.start} is 0x{byte:02x}"
        ) from error
    return text.replace(BYTE_ORDER_MARK, "")

"""What a person sees."""

from pathlib import Path

import pytest

from trainer.console import Console
from trainer.errors import ConfigError


def test_full_disk():
    console = Console(Path("/dev/full"), show_progress=False)
    with pytest.raises(ConfigError, match="cannot write /dev/full: No space left"):
        console.print("step 1")
    console.close()

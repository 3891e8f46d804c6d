"""What a person sees."""

import io
import re
import time
from pathlib import Path

import pytest

from core.errors import ConfigError
from trainer.loggers.console import PLAIN_SECONDS, Console


def test_full_disk():
    console = Console(Path("/dev/full"), show_progress=False)
    with pytest.raises(ConfigError, match="cannot write /dev/full: No space left"):
        console.print("step 1")
    console.close()


@pytest.mark.parametrize(
    ("losses", "shown"),
    [
        ({}, ""),
        ({"train/loss": 0.25}, "  loss 0.2500"),
        (
            {"train/discriminator/loss": 0.25, "train/generator/loss": 3.0},
            "  discriminator 0.2500  generator 3.0000",
        ),
    ],
)
def test_plain_progress(tmp_path, losses, shown):
    """Where there is no terminal; of every phase its loss."""
    stream = io.StringIO()
    console = Console(tmp_path / "train.log", show_progress=True, stream=stream)
    console.start(10, 0)
    console.shown_at = console.started_at = time.monotonic() - PLAIN_SECONDS
    console.advance(5, 300, losses)
    console.close()
    line = rf"step 5/10  \d+ samples/s{re.escape(shown)}  3\d s left\n"
    assert re.fullmatch(line, stream.getvalue())

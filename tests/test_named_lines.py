"""Console output of concurrent jobs."""

import io
import sys

from core.named_lines import VARIABLE, name_lines


def test_every_line_is_prefixed_with_its_job(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    name_lines("0")
    print("\nstep 1", "of 2")
    print("a part", end="")
    print("error: none", file=sys.stderr)
    print(", the rest")
    name_lines("1")  # the next job in the same process
    print("two\nlines")
    assert not sys.stdout.isatty()
    assert screen.getvalue().splitlines() == [
        "[0] step 1 of 2",
        "[0] error: none",
        "[0] a part, the rest",
        "[1] two",
        "[1] lines",
    ]

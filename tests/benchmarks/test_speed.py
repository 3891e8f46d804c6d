"""The speed comparison runs."""

import pytest


@pytest.mark.slow
def test_smoke(command, tmp_path):
    done = command("benchmarks/speed.py", "--smoke", "--root", str(tmp_path / "datasets"))
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line[:2] == "| "]
    assert rows[-2:] == ["LightCNN, batch 64, fp32", "LightCNN, batch 64, bf16"]

"""The comparisons run."""

import pytest


def first_cells(output):
    return [line.split("|")[1].strip() for line in output.splitlines() if line[:2] == "| "]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "rows"),
    [
        ("speed", ["LightCNN, batch 64, fp32", "LightCNN, batch 64, bf16"]),
        ("start", ["import torch", "main job, W&B disabled", "main job, W&B offline"]),
        ("text", ["fp32", "context of 64", "context of 256"]),
    ],
)
def test_smoke(command, tmp_path, script, rows):
    root = ("--root", str(tmp_path / "datasets")) if script == "speed" else ()
    done = command(f"benchmarks/{script}.py", "--smoke", *root)
    assert done.returncode == 0, done.stderr
    assert set(rows) <= set(first_cells(done.stdout))

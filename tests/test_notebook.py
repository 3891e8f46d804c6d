"""The notebook runs; the test reduces it to one epoch and two seeds."""

import json

import matplotlib
import pytest

from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs" / "start" / "first_comparison.ipynb"
FULL, SHORT = 'seeds, epochs = "0,1,2,3,4", 5', 'seeds, epochs = "0,1", 1'


@pytest.mark.slow
def test_first_comparison_runs(monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(NOTEBOOK.parent)
    matplotlib.use("agg")
    cells = [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in cells]
    assert sources.count(FULL) == 1
    namespace: dict = {}
    for source in sources:
        exec(SHORT if source == FULL else source, namespace)
    assert len(namespace["axes"].lines) == 4
    assert "This holds for these settings" in capsys.readouterr().out

"""The page on use from Python, to the letter but for the length of its run."""

import re

import pytest

from core.errors import ConfigError
from tests.conftest import ROOT
from train import train

PAGE = (ROOT / "docs" / "use" / "python.md").read_text()
LENGTH = '"trainer.max_epochs=1"'

pytestmark = pytest.mark.usefixtures("few_digits")


def test_the_page(monkeypatch, tmp_path, data_root):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    assert blocks[0].count(LENGTH) == 1
    names: dict = {}
    exec(blocks[0].replace(LENGTH, f'"debug=fast", "data.root={data_root}"'), names)
    exec(blocks[1], names)
    run = names["run"]
    assert names["run_dir"].parent.parent == tmp_path / "outputs"
    assert run.test()["test/accuracy"] == run.summary["test/accuracy"]
    assert names["probabilities"].shape == (2, 10)
    assert len(names["curve"]) == 2
    assert (run.run_dir / ".hydra" / "overrides.yaml").exists()


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("study=sgd_or_adamw", "makes one run"),
        ("model.dropout=x", "should be a number"),
        ("optimizer.lrr=1", r"did you mean optimizer\.lr"),
        ("model=nope", "no such option"),
        ("hydra.run.dir=a_file/run", "a_file/run: Not a directory"),
    ],
)
def test_mistakes_are_raised(monkeypatch, tmp_path, data_root, override, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    with pytest.raises(ConfigError, match=why):
        train(override, "debug=fast", "wandb.mode=disabled", f"data.root={data_root}")

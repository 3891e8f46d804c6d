"""The examples in ``docs/use/python.md`` run as printed, except that training is shorter."""

import re

import pytest

from core.errors import ConfigError
from tests.conftest import ROOT
from train import train

PAGE = (ROOT / "docs" / "use" / "python.md").read_text()
TRAINING_LENGTH = '"trainer.max_epochs=1"'

pytestmark = pytest.mark.usefixtures("few_digits")


def test_documented_examples_run(monkeypatch, tmp_path, data_root):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    assert blocks[0].count(TRAINING_LENGTH) == 1
    namespace: dict = {}
    exec(blocks[0].replace(TRAINING_LENGTH, f'"debug=fast", "data.root={data_root}"'), namespace)
    exec(blocks[1], namespace)
    run = namespace["run"]
    assert namespace["run_dir"].parent.parent == tmp_path / "outputs"
    assert run.test()["test/accuracy"] == run.summary["test/accuracy"]
    assert namespace["probabilities"].shape == (2, 10)
    assert len(namespace["curve"]) == 2
    assert (run.run_dir / ".hydra" / "overrides.yaml").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("study=sgd_or_adamw", "makes one run"),
        ("model.dropout=x", "should be a number"),
        ("optimizer.lrr=1", r"did you mean optimizer\.lr"),
        ("model=nope", "no such option"),
        ("hydra.run.dir=a_file/run", "a_file/run: Not a directory"),
    ],
)
def test_mistakes_raise_config_error(monkeypatch, tmp_path, data_root, override, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    with pytest.raises(ConfigError, match=message):
        train(override, "debug=fast", "wandb.mode=disabled", f"data.root={data_root}")

"""Fixtures that compose configs, train in this process and run the real commands."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from core.composed import compose_config

ROOT = Path(__file__).parent.parent
QUIET = ("wandb.mode=disabled", "trainer.progress=false", "trainer.num_threads=1")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Limit each test to one thread, since tests run in parallel."""
    torch.set_num_threads(1)
    yield
    if torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where prepared data sets are cached during the tests."""
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="session")
def composed() -> Callable[..., dict[str, Any]]:
    """``composed("optim=sgd_cosine", ...)`` returns the resolved config as plain data."""
    unresolved = cache(lambda *overrides: compose_config(overrides))

    def plain(*overrides: str) -> dict[str, Any]:
        config = OmegaConf.to_container(unresolved(*overrides), resolve=True, throw_on_missing=True)
        assert isinstance(config, dict)
        return {str(key): value for key, value in config.items()}

    return plain


@pytest.fixture
def few_digits(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce ``data=mnist5k`` to 300 digits: 210 for training, 30 and 60 for the other splits."""
    from data import mnist5k

    images, labels = mnist5k.all_digits(str(data_root))
    chosen = torch.arange(len(labels))[:: len(labels) // 300][:300]
    monkeypatch.setattr(mnist5k, "all_digits", lambda root: (images[chosen], labels[chosen]))


@pytest.fixture(scope="session")
def train_in(composed: Callable[..., dict[str, Any]], data_root: Path) -> Callable[..., Path]:
    """``train_in(folder, "debug=fast", ...)`` trains in this process and returns the folder."""
    from core.job import Job
    from core.schema import check_settings
    from train import run

    def train_here(folder: Path, *overrides: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        config = composed(*QUIET, f"data.root={data_root}", *overrides)
        check_settings(config)
        run(config, Job(run_dir=str(folder), overrides=overrides))
        return folder

    return train_here


@pytest.fixture
def train(train_in: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """``train("debug=fast", ...)`` trains in this process and returns a new run directory."""
    numbers = itertools.count()

    def train_here(*overrides: str, run_dir: Path | None = None) -> Path:
        return train_in(run_dir or tmp_path / f"run{next(numbers)}", *overrides)

    return train_here


@pytest.fixture(scope="module")
def train_once(
    train_in: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Like ``train``, for a run that all tests of a module share."""
    return lambda *overrides: train_in(tmp_path_factory.mktemp("run"), *overrides)


@pytest.fixture
def command(data_root: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``command("train.py", "optim=typo")`` runs it in a subprocess, in an empty folder."""

    def run_command(*arguments: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
        script, *rest = arguments
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **changes}
        return subprocess.run(
            [sys.executable, str(ROOT / script), *rest],
            cwd=tmp_path,
            env={name: value for name, value in environment.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run_command


@pytest.fixture
def command_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Like ``command``, but in this process, which saves the seconds of a start."""
    import predict
    import train
    from core.command_line import command_line
    from study.sweep import Sweep

    # an absolute path: for an imported module, Hydra looks for conf/ as a package
    main = hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")(
        train.main.__wrapped__
    )

    def run_here(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", list(arguments))
        GlobalHydra.instance().clear()
        capfd.readouterr()
        with patch.dict(os.environ, changes):
            os.environ.pop("HYDRA_FULL_ERROR", None)
            try:
                is_training = arguments[0] == "train.py"
                code = command_line(main, Sweep.finish) if is_training else predict.main()
            except SystemExit as usage:  # raised by argparse
                code = int(usage.code or 0)
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return run_here


@pytest.fixture
def predict(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[list[str], list[str]]]:
    """``predict(run_dir, "digit.png", code=1)`` returns the lines on stdout and on stderr."""
    from predict import main

    def predict_here(*arguments: object, code: int = 0) -> tuple[list[str], list[str]]:
        capsys.readouterr()
        found = main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        assert found == code, output.err
        return output.out.splitlines(), output.err.splitlines()

    return predict_here


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights and a tokenizer of a few words, as a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "film", "good", "bad", "very", "dull"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    folder = tmp_path_factory.mktemp("tiny_bert")
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    return folder

"""Fixtures: the splits and the batches that a config describes."""

import pytest
import torch

from core.ranks import Ranks
from data.build import build_data, build_splits
from tests.test_conf import MANDATORY


@pytest.fixture(scope="session")
def data_config(composed, data_root):
    """``data_config("npz", path=...)``: the node ``data``, other settings as in the YAML."""

    def compose(option, /, **settings):
        config = composed(f"data={option}", *MANDATORY.get(f"data={option}", []))["data"]
        return {**config, "root": str(data_root), **settings}

    return compose


@pytest.fixture(scope="session")
def splits_of(data_config):
    """``splits_of("npz", path=...)``: its splits."""
    return lambda option, /, **settings: build_splits(data_config(option, **settings))


@pytest.fixture
def load(data_config):
    """``load("mnist5k", Ranks(1, 1, 2), seed=3, batch_size=8)``: its loader."""
    loaders = []

    def build(option, /, ranks=Ranks(), accumulate_steps=1, seed=0, **settings):  # noqa: B008  # frozen
        config = data_config(option, **settings)
        loaders.append(build_data(config, torch.device("cpu"), seed, ranks, accumulate_steps, 5))
        return loaders[-1]

    yield build
    for loader in loaders:
        loader.close()

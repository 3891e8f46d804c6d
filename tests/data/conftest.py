"""Fixtures that compose a data config and build its splits or its loader."""

import pytest
import torch

from core.ranks import Ranks
from data.build import build_data, build_splits
from tests.test_conf import MANDATORY


@pytest.fixture(scope="session")
def data_config(composed, data_root):
    """Return a function that composes the node ``data``: ``data_config("npz", path=...)``."""

    def compose(option, /, **settings):
        config = composed(f"data={option}", *MANDATORY.get(f"data={option}", []))["data"]
        return {**config, "root": str(data_root), **settings}

    return compose


@pytest.fixture(scope="session")
def make_splits(data_config):
    """Return a function that builds the splits of a config: ``make_splits("npz", path=...)``."""
    return lambda option, /, **settings: build_splits(data_config(option, **settings))


@pytest.fixture
def make_loader(data_config):
    """Return a function that builds a loader: ``make_loader("mnist5k", seed=3, batch_size=8)``."""
    loaders = []

    def build(option, /, ranks=Ranks(), accumulate_steps=1, seed=0, **settings):  # noqa: B008  # frozen
        config = data_config(option, **settings)
        loaders.append(build_data(config, torch.device("cpu"), seed, ranks, accumulate_steps, 5))
        return loaders[-1]

    yield build
    for loader in loaders:
        loader.close()

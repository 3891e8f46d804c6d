"""Building the model that a config describes."""

import pytest
import torch

from core.errors import ConfigError
from data.splits import ImageSpec
from models.build import build_model

SPEC = ImageSpec("tiny", 1, (28, 28), ("a", "b"), mean=(0.2,), std=(0.4,))


def test_sparse_gradients_are_refused():
    node = {"_target_": "torch.nn.Embedding", "num_embeddings": 3, "embedding_dim": 2}
    assert build_model(node, SPEC, torch.device("cpu")).weight.shape == (3, 2)
    with pytest.raises(ConfigError, match="makes sparse gradients"):
        build_model({**node, "sparse": True}, SPEC, torch.device("cpu"))

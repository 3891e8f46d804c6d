"""Several augmented views of each image, for contrastive objectives."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from core.errors import ConfigError
from core.ranks import Ranks
from models.build import build_model
from objectives.base import Objective, mean_over_batch

pytestmark = pytest.mark.usefixtures("few_digits")


class SimCLR(Objective):
    """NT-Xent over the views of a batch (arXiv:2002.05709, equation 1), temperature 0.5."""

    takes_views = True

    def forward(self, phase, batch):
        first, second, _ = batch
        codes = F.normalize(self.model(torch.cat([first, second])), dim=1)
        similarities = codes @ codes.T / 0.5
        similarities.fill_diagonal_(-torch.inf)
        count = len(first)
        partners = torch.arange(2 * count).roll(count)
        losses = F.cross_entropy(similarities, partners, reduction="none")
        return losses.mean(), {"loss": mean_over_batch(losses)}


@pytest.fixture
def digits(make_loader):
    """Return a function that builds a loader of digits with two views of each."""
    return partial(make_loader, "mnist5k", views=2, batch_size=32)


def test_views_differ_and_do_not_depend_on_batch_splitting(digits):
    data = digits()
    ((first, second, labels),) = next(data.train(0))
    assert first.shape == second.shape == (32, 1, 28, 28)
    assert not any(map(torch.equal, first, second))
    repeated = next(digits().train(0))[0]
    assert all(map(torch.equal, repeated, (first, second, labels)))
    micro = next(digits(accumulate_steps=2).train(0))
    halves = [next(digits(Ranks(rank, rank, 2)).train(0))[0] for rank in (0, 1)]
    for parts in (micro, halves):
        for i, expected in enumerate((first, second, labels)):
            assert torch.equal(torch.cat([part[i] for part in parts]), expected)
    evaluated = next(data.evaluate("val"))
    assert len(evaluated) == 2


def test_contrastive_objective_learns(digits, composed):
    data = digits()
    torch.manual_seed(0)
    objective = SimCLR(build_model(composed()["model"], data.spec, data.device))
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    losses = []
    for epoch in range(3):
        for (batch,) in data.train(epoch):
            loss, _ = objective("train", batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5]) - 1


def test_unsupported_views_are_rejected(digits, train):
    with pytest.raises(ConfigError, match=r"views=2 should be 1: Classification takes one view"):
        train("data.views=2")
    for changes in ({"views": 0}, {"views": 2.5}, {"augment": []}):
        with pytest.raises(ConfigError, match=r"data\.views=.* should be an integer, 1 or more"):
            digits(**changes)

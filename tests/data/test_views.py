"""Several views of an image: what a contrastive objective gets, whatever the update is cut into."""

import pytest
import torch
from torch.nn import functional as F

from core.errors import ConfigError
from core.ranks import Ranks
from data.build import build_data, build_splits
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
def config(composed, data_root):
    return composed("data.views=2", "data.batch_size=32", f"data.root={data_root}")


def load(config, rank=0, world_size=1, accumulate_steps=1):
    ranks = Ranks(rank=rank, local_rank=rank, world_size=world_size)
    return build_data(config["data"], torch.device("cpu"), 0, ranks, accumulate_steps)


def test_two_views_differ_and_depend_on_position_alone(config):
    data = load(config)
    ((first, second, labels),) = next(data.train(0))
    assert first.shape == second.shape == (32, 1, 28, 28)
    assert not any(map(torch.equal, first, second))
    again = next(load(config).train(0))[0]
    assert all(map(torch.equal, again, (first, second, labels)))
    micro = next(load(config, accumulate_steps=2).train(0))
    for i, whole in enumerate((first, second, labels)):
        assert torch.equal(torch.cat([batch[i] for batch in micro]), whole)
    halves = [next(load(config, rank, 2).train(0))[0] for rank in (0, 1)]
    for i, whole in enumerate((first, second, labels)):
        assert torch.equal(torch.cat([half[i] for half in halves]), whole)
    evaluated = next(data.evaluate("val"))
    assert len(evaluated) == 2


def test_a_contrastive_objective_learns(config):
    data = load(config)
    torch.manual_seed(0)
    objective = SimCLR(build_model(config["model"], data.spec, data.device))
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    losses = []
    for epoch in range(4):
        for (batch,) in data.train(epoch):
            loss, _ = objective("train", batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5]) - 1


def test_views_are_refused_where_they_make_no_sense(config, train):
    with pytest.raises(ConfigError, match=r"views=2 should be 1: Classification takes one view"):
        train("data.views=2")
    for changes in ({"views": 0}, {"views": 2.5}, {"augment": []}):
        with pytest.raises(ConfigError, match=r"data\.views=.* should be a number, 1 or more"):
            build_splits({**config["data"], **changes})

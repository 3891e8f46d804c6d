"""Every file of ``conf/study/``; every optimizer has a search space, equally wide in rates."""

import math

import pytest
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from core.composed import CONF, compose_config
from core.overrides import text
from core.schema import check_settings
from optim.build import build_optimizer, build_schedule
from optim.schedules import Horizon
from study.protocol import Protocol
from study.space import Space
from study.sweeper import check_arguments

STUDIES = [f.stem for f in sorted((CONF / "study").glob("*.yaml")) if not f.stem.startswith("_")]
FILES = ("_optimizer_spaces", "_new_optimizer_spaces")
OPTIMIZERS = {file.stem for file in (CONF / "optimizer").glob("*.yaml")}
LIBRARIES = {"timm", "pytorch_optimizer"}
OF_GANS = {"adam_gan", "rmsprop_gan"}  # study=gan_optimizers has theirs
# who compares one of these gives it a space: see the others' sources
UNTUNED = {"adopt", "came", "dadapt_adam", "kron", "lbfgs", "lookahead", "mars"}
UNTUNED |= {"sam", "scion", "shampoo", "signum", "sophia", "torch_muon"}
SPACES = {
    name: candidate
    for file in FILES
    for name, candidate in yaml.safe_load((CONF / "study" / f"{file}.yaml").read_text())["hydra"][
        "sweeper"
    ]["candidates"].items()
}


def test_every_other_optimizer_has_a_space():
    assert set(SPACES) == OPTIMIZERS - LIBRARIES - OF_GANS - UNTUNED


@pytest.mark.parametrize("name", SPACES)
def test_space_has_a_source_and_three_numbers_that_the_optimizer_takes(name, composed):
    candidate = SPACES[name]
    space = Space.of(candidate["space"], name)
    assert candidate["source"]
    assert len(space.dimensions) == 3
    rate = space.dimensions[0]
    assert rate.key == "optimizer.lr"
    assert 2.3 < math.log10(rate.high / rate.low) < 3.1, "trials as dense in rates for all"
    assert candidate["overrides"][0] == f"optimizer={name}"
    # composed once, as that takes long; the ends of the space are set afterwards
    middle = [f"{key}={text(value)}" for key, value in space.at([0.5] * 3).items()]
    config = OmegaConf.create(composed("study=mnist_optimizers", *candidate["overrides"], *middle))
    for share in (0.0, 0.5, 1.0):
        for key, value in space.at([share] * 3).items():
            OmegaConf.update(config, key, value)
        plain = OmegaConf.to_container(config)
        check_settings(plain)
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
        build_optimizer(plain["optimizer"], net, plain["param_groups"])
        schedule = build_schedule(plain["scheduler"], Horizon(100, 10))
        assert schedule(0, 1.0) < schedule(5, 1.0) == 1.0, "the same warm-up for all"


def test_studies_compose_with_every_candidate():
    """What tunes an optimizer alone is composed with one of the studies that have it."""
    known = [(space["overrides"], space["space"]) for space in SPACES.values()]
    for name in STUDIES:
        cfg = compose_config([f"study={name}"], with_hydra=True)
        if "candidates" not in cfg.hydra.sweeper:
            continue  # a single run
        assert cfg.hydra.mode.name == cfg.hydra.sweeper.mode == "MULTIRUN", "without -m too"
        protocol = Protocol.of(instantiate(cfg.hydra.sweeper).settings)
        check_arguments((f"study={name}",), protocol)
        for candidate in protocol.candidates.values():
            assert candidate.source, "a search space says where it comes from"
            if (candidate.overrides, candidate.space) in known:
                continue
            space = candidate.search_space
            settings = space.at(space.design("sobol", 1, 0)[0])
            overrides = [*candidate.overrides, *(f"{k}={v}" for k, v in settings.items())]
            run = compose_config([f"study={name}", *overrides])
            check_settings(OmegaConf.to_container(run, resolve=True, throw_on_missing=True))
            if all(override.startswith("optimizer") for override in overrides):
                known.append((candidate.overrides, candidate.space))


def test_candidates_may_refer_to_their_own_settings():
    """As dcgan_optimizers does: one momentum for two networks."""
    cfg = compose_config(["study=dcgan_optimizers"], with_hydra=True)
    adam = instantiate(cfg.hydra.sweeper).settings["candidates"]["adam"]
    tuned = "phases.generator.optimizer.betas.0=0.3"
    phases = compose_config(["study=dcgan_optimizers", *adam["overrides"], tuned]).phases
    assert phases.discriminator.optimizer.betas[0] == 0.3

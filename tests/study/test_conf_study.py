"""Every study in ``conf/study/`` composes, and all optimizers have comparable search spaces."""

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
SPACE_FILES = ("_optimizer_spaces", "_new_optimizer_spaces")
OPTIMIZERS = {file.stem for file in (CONF / "optimizer").glob("*.yaml")}
LIBRARY_WRAPPERS = {"timm", "pytorch_optimizer"}
GAN_OPTIMIZERS = {"adam_gan", "rmsprop_gan"}  # their spaces are in study=gan_optimizers
# to compare one of these in a study, first give it a search space with a source
WITHOUT_SPACE = {"adopt", "came", "dadapt_adam", "kron", "lbfgs", "lookahead", "mars"}
WITHOUT_SPACE |= {"sam", "scion", "shampoo", "signum", "sophia", "torch_muon"}
SPACES = {
    name: candidate
    for file in SPACE_FILES
    for name, candidate in yaml.safe_load((CONF / "study" / f"{file}.yaml").read_text())["hydra"][
        "sweeper"
    ]["candidates"].items()
}


def test_every_optimizer_has_a_search_space_or_is_exempt():
    assert set(SPACES) == OPTIMIZERS - LIBRARY_WRAPPERS - GAN_OPTIMIZERS - WITHOUT_SPACE


@pytest.mark.parametrize("name", SPACES)
def test_search_space_has_a_source_and_three_valid_dimensions(name, composed):
    candidate = SPACES[name]
    space = Space.of(candidate["space"], name)
    assert candidate["source"]
    assert len(space.dimensions) == 3
    rate = space.dimensions[0]
    assert rate.key == "optimizer.lr"
    assert 2.3 < math.log10(rate.high / rate.low) < 3.1, "similar ranges for all optimizers"
    assert candidate["overrides"][0] == f"optimizer={name}"
    # composing is slow: compose once, then set the other points of the space in the config
    middle = [f"{key}={text(value)}" for key, value in space.at([0.5] * 3).items()]
    config = OmegaConf.create(composed("study=mnist_optimizers", *candidate["overrides"], *middle))
    for position in (0.0, 0.5, 1.0):
        for key, value in space.at([position] * 3).items():
            OmegaConf.update(config, key, value)
        plain = OmegaConf.to_container(config)
        check_settings(plain)
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
        build_optimizer(plain["optimizer"], net, plain["param_groups"])
        schedule = build_schedule(plain["scheduler"], Horizon(100, 10))
        assert schedule(0, 1.0) < schedule(5, 1.0) == 1.0, "all optimizers have the same warm-up"


def test_studies_compose_with_every_candidate():
    """A candidate that only sets its optimizer is composed once, not again for every study."""
    known = [(space["overrides"], space["space"]) for space in SPACES.values()]
    for name in STUDIES:
        cfg = compose_config([f"study={name}"], with_hydra=True)
        if "candidates" not in cfg.hydra.sweeper:
            continue  # a single run
        assert cfg.hydra.mode.name == cfg.hydra.sweeper.mode == "MULTIRUN", "even without -m"
        protocol = Protocol.of(instantiate(cfg.hydra.sweeper).settings)
        check_arguments((f"study={name}",), protocol)
        for candidate in protocol.candidates.values():
            assert candidate.source, "a search space cites its source"
            if (candidate.overrides, candidate.space) in known:
                continue
            space = candidate.search_space
            settings = space.at(space.design("sobol", 1, 0)[0])
            overrides = [*candidate.overrides, *(f"{k}={v}" for k, v in settings.items())]
            run = compose_config([f"study={name}", *overrides])
            check_settings(OmegaConf.to_container(run, resolve=True, throw_on_missing=True))
            if all(override.startswith("optimizer") for override in overrides):
                known.append((candidate.overrides, candidate.space))


def test_candidate_overrides_may_interpolate_tuned_settings():
    """``dcgan_optimizers`` tunes one momentum for both networks."""
    cfg = compose_config(["study=dcgan_optimizers"], with_hydra=True)
    adam = instantiate(cfg.hydra.sweeper).settings["candidates"]["adam"]
    tuned = "phases.generator.optimizer.betas.0=0.3"
    phases = compose_config(["study=dcgan_optimizers", *adam["overrides"], tuned]).phases
    assert phases.discriminator.optimizer.betas[0] == 0.3

"""Adversarial and denoising objectives: phases, losses, evaluation, records, resuming."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image

from core.composed import check_phases
from core.errors import ConfigError
from core.ranks import Ranks
from core.schema import check_settings, dotted_keys, unknown_key
from data.splits import ImageSpec
from metrics.fid import Extractor
from models.dcgan import DCGAN
from models.lightcnn import LightCNN
from models.unet import UNet
from objectives import generation
from objectives.adversarial import Adversarial
from objectives.denoising import Denoising
from optim.schedules import Horizon
from tests.trainer.interrupting import events, summary
from trainer.build import build_phases
from trainer.phase import Phase

SPEC = ImageSpec("tiny", 1, (28, 28), ("a", "b"), mean=(0.2,), std=(0.4,))
SMALL_GAN = ("model=dcgan", "model.width=8", "model.latent_dim=16")
SMALL_UNET = (
    "model=unet",
    "model.width=8",
    "model.multipliers=[1,2]",
    "model.num_steps=50",
    "model.sample_steps=2",
)


def adversarial() -> Adversarial:
    torch.manual_seed(0)
    return Adversarial(DCGAN(1, (28, 28), 16, 8), SPEC, None, "unused")


def denoising() -> Denoising:
    torch.manual_seed(0)
    model = UNet(1, (28, 28), 8, [1, 2], num_steps=50, prediction="velocity", sample_steps=2)
    return Denoising(model, SPEC, None, "unused")


def batch(count: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.zeros(count, 1, 28, 28)
    images[:, :, 8:20, 8:20] = torch.rand(count, 1, 1, 1, generator=generator)
    return (images - SPEC.mean[0]) / SPEC.std[0], torch.zeros(count, dtype=torch.long)


@pytest.fixture
def phases_of(composed: Callable[..., dict[str, Any]]) -> Callable[..., list[Phase]]:
    """Return a function that builds the phases of an objective."""

    def build(objective: Adversarial, *overrides: str) -> list[Phase]:
        config = composed(*SMALL_GAN, *overrides)
        return build_phases(config, objective, Horizon(10, 5), check_settings(config))

    return build


def test_images_are_scaled_to_the_range_of_the_model():
    images, _ = batch()
    in_range = adversarial().in_range(images)
    assert in_range.min().item() == pytest.approx(-1, abs=1e-6)
    assert in_range.max() <= 1 + 1e-6


# --- adversarial


def test_each_phase_updates_only_its_own_parameters(phases_of):
    objective = adversarial()
    modules = objective.phases()
    assert list(modules) == ["discriminator", "generator"]
    for phase in phases_of(objective):
        before = {
            name: [p.detach().clone() for p in module.parameters()]
            for name, module in modules.items()
        }
        objective.zero_grad()
        loss, _ = phase.compute(batch())
        loss.backward()
        for name, module in modules.items():  # the other phase gets no gradients
            assert all((p.grad is not None) == (name == phase.name) for p in module.parameters())
        phase.optimizer.step()
        for name, module in modules.items():
            changed = [
                not torch.equal(old, new)
                for old, new in zip(before[name], module.parameters(), strict=True)
            ]
            assert all(changed) if name == phase.name else not any(changed)
    assert all(p.requires_grad for p in objective.parameters())


def test_adversarial_losses_equal_cross_entropies():
    objective = adversarial()
    images = objective.in_range(batch()[0])
    noise = objective.model.noise(16)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    model = objective.model
    fake = model.generator(noise).detach()
    real_logits, fake_logits = model.discriminator(images), model.discriminator(fake)
    ones, zeros = torch.ones(16), torch.zeros(16)
    expected = bce(real_logits, ones) + bce(fake_logits, zeros)
    assert torch.allclose(objective.discriminator_loss(images, noise)[0], expected)
    assert torch.allclose(objective.generator_loss(noise)[0], bce(fake_logits, ones), atol=1e-4)


def test_default_optimizers_of_the_phases(phases_of):
    discriminator, generator = phases_of(adversarial())
    assert type(generator.optimizer) is torch.optim.Adam
    assert generator.optimizer.defaults["lr"] == 2e-4
    assert tuple(generator.optimizer.defaults["betas"]) == (0.0, 0.999)
    assert type(discriminator.optimizer) is torch.optim.RMSprop
    assert discriminator.optimizer.defaults["lr"] == 2e-4
    assert discriminator.optimizer.defaults["alpha"] == 0.9


def test_phases_are_configured_independently(phases_of):
    discriminator, generator = phases_of(
        adversarial(),
        "optimizer@phases.generator.optimizer=adamw",
        "phases.generator.optimizer.lr=1e-3",
        "phases.generator.clip_grad_norm=1",
        "scheduler@phases.generator.scheduler=cosine",
        "scheduler@phases.discriminator.scheduler=step",
        "phases.discriminator.scheduler.step_size=1",
    )
    assert type(generator.optimizer) is torch.optim.AdamW
    assert (generator.clip_grad_norm, discriminator.clip_grad_norm) == (1, None)
    rates = []
    for step in (0, 5, 10):
        for phase in (discriminator, generator):
            phase.follow_schedules(step)
        rates.append((discriminator.lr, generator.lr))
    assert rates == [
        pytest.approx(expected) for expected in [(2e-4, 1e-3), (2e-5, 5e-4), (2e-6, 0)]
    ]


@pytest.mark.parametrize(
    "override",
    ["optim=sgd_cosine", "optimizer=adam", "+optimizer.lr=1", "trainer.clip_grad_norm=1"],
)
def test_settings_outside_the_phases_are_rejected(override):
    both = ["discriminator", "generator"]
    with pytest.raises(ConfigError, match=r"has no effect: .*phases\.generator\.optimizer\.lr="):
        check_phases(both, ["model=dcgan", override])
    check_phases([], [override])
    check_phases(both, ["optimizer@phases.generator.optimizer=adamw"])
    check_phases(both, ["phases.generator.optimizer.lr=1"])


def test_unknown_optimizer_setting_suggests_phase_setting(composed):
    keys = dotted_keys(composed("model=dcgan"))
    assert "did you mean phases.discriminator.optimizer.lr" in unknown_key("optimizer.lr", keys)


@pytest.mark.parametrize(("objective", "model"), [(Adversarial, "UNet"), (Denoising, "DCGAN")])
def test_incompatible_model_is_rejected(objective, model):
    other = denoising().model if model == "UNet" else adversarial().model
    with pytest.raises(ConfigError, match=f"do not fit: {model}"):
        objective(other, SPEC, None, "unused")
    with pytest.raises(ConfigError, match="LightCNN does not generate images"):
        objective(LightCNN(1, 10, (28, 28)), SPEC, None, "unused")


@pytest.mark.parametrize("name", ["diffusion", "generator", "discriminator"])
def test_network_that_returns_a_tuple_is_rejected(name):
    objective = denoising() if name == "diffusion" else adversarial()
    network = objective.model if name == "diffusion" else objective.model.get_submodule(name)
    network.forward = lambda *inputs: (inputs[0], None)
    with pytest.raises(ConfigError, match="returns a tuple of Tensor, NoneType for two samples"):
        type(objective)(objective.model, SPEC, None, "unused")


# --- denoising


def test_denoising_loss_of_perfect_prediction_is_zero():
    objective = denoising()
    diffusion = objective.model.diffusion
    images = batch()[0]

    def perfect(x, t):
        alpha_bar = diffusion.alpha_bar[t].view(-1, 1, 1, 1)
        clean = objective.in_range(images)
        return diffusion.target(clean, (x - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt(), t)

    objective.model.forward = perfect
    assert objective("train", (images,))[0] < 1e-6


# --- evaluation


def with_features(objective):
    objective.extractor = Extractor(LightCNN(1, 2, (28, 28)), SPEC, torch.device("cpu"))
    objective.training_features = objective.features(objective.in_range(batch(64)[0]))
    return objective.eval()


@pytest.mark.parametrize("make", [adversarial, denoising])
@torch.no_grad()
def test_evaluation_is_repeatable_and_keeps_random_state(make):
    objective = with_features(make())
    state = torch.get_rng_state()
    results = []
    for _ in range(2):
        objective.begin_evaluation(0)
        sums, samples = objective.evaluate(objective.model, batch(64))
        metrics, further = objective.conclude(objective.model, samples)
        results.append((sums, metrics, further["generated"]))
    assert torch.equal(state, torch.get_rng_state())
    assert results[0][1] == results[1][1]
    assert torch.equal(results[0][2], results[1][2])
    if make is denoising:
        assert results[0][0]["loss"][0] == results[1][0]["loss"][0]


@torch.no_grad()
def test_denoising_val_loss_is_independent_of_batch_size():
    objective = with_features(denoising())
    images, labels = batch(16)
    objective.begin_evaluation(3)
    full, _ = objective.evaluate(objective.model, (images, labels))
    parts = []
    for first in (3, 3 + 8):  # as on two processes, or in two batches
        objective.begin_evaluation(first)
        part = slice(first - 3, first + 5)
        parts.append(objective.evaluate(objective.model, (images[part], labels[part]))[0])
    total = sum(part["loss"][0] for part in parts)
    assert full["loss"][0].item() == pytest.approx(total.item(), rel=1e-4)


@torch.no_grad()
def test_fid_of_real_images_is_far_below_fid_of_noise():
    objective = with_features(adversarial())
    _, samples = objective.evaluate(objective.model, batch(64))
    metrics, _ = objective.conclude(objective.model, samples)
    assert metrics["fid_of_training_images"] < 0.01 * metrics["fid_of_noise"]


@torch.no_grad()
def test_generation_is_divided_among_processes(monkeypatch):
    objective = with_features(adversarial())
    noise = objective.model.noise(7, torch.Generator().manual_seed(0))
    full = objective.generate(objective.model, noise)
    shards = []
    for ranks in (Ranks(0, 0, 2), Ranks(1, 1, 2)):
        monkeypatch.setattr(generation, "ranks_of_this_process", lambda ranks=ranks: ranks)
        shards.append(objective.generate(objective.model, noise))
    for expected, parts in zip(full, zip(*shards, strict=True), strict=True):
        assert torch.allclose(expected, torch.cat(parts), atol=1e-5)


# --- complete runs


@pytest.fixture(scope="module")
def extractor_run(train_once):
    """A briefly trained LightCNN; the quality of its features does not matter here."""
    return train_once("debug=fast")


EMA_AND_ACCUMULATION = ("trainer.ema_decay=0.9", "trainer.accumulate_steps=2")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ((*SMALL_GAN, *EMA_AND_ACCUMULATION, "phases.generator.clip_grad_norm=1",
          "scheduler@phases.generator.scheduler=cosine"),
         {"train/discriminator/loss", "train/generator/loss", "optim/generator/lr"}),
        ((*SMALL_UNET, *EMA_AND_ACCUMULATION, "trainer.eval_train_samples=6"),
         {"train/loss", "train_eval/loss", "val/loss", "optim/lr"}),
    ],
    ids=["gan", "diffusion"],
)  # fmt: skip
def test_run_records_samples_and_resumes_bit_identical(
    check_resume, extractor_run, few_digits, settings, names
):
    settings = (*settings, "data.batch_size=16", "data.eval_batch_size=40", "trainer.max_steps=4",
                "trainer.eval_every_steps=2", "trainer.log_every_steps=1",
                "trainer.precision=fp32", f"objective.fid_extractor={extractor_run}")  # fmt: skip
    run_dir = check_resume((3,), *settings)
    recorded = events(run_dir)
    assert [event["step"] for event in recorded if "val/fid" in event] == [2, 4]
    media_files = [event["media"]["val/samples"]["file"] for event in recorded if "val/samples" in
             event.get("media", {})]  # fmt: skip
    assert media_files == ["val_step_2/samples.png", "val_step_4/samples.png"]
    with Image.open(run_dir / "media" / media_files[0]) as grid:
        assert grid.size == (6 * 30 - 2, 5 * 30 - 2)
    with Image.open(run_dir / "media" / "samples.png") as grid:
        assert grid.size == (8 * 30 - 2, 8 * 30 - 2)
    assert names <= set().union(*recorded)
    assert "train_eval/fid" not in set().union(*recorded), "only means over samples"
    assert summary(run_dir)["monitor"] == "val/fid"
    assert summary(run_dir)["test/fid"] > 0


def test_eval_train_samples_is_rejected_for_gan(train, extractor_run, few_digits):
    with pytest.raises(ConfigError, match=r"^trainer\.eval_train_samples=6 should be null: Advers"):
        train(
            *SMALL_GAN, "data.batch_size=16", "trainer.eval_train_samples=6",
            f"objective.fid_extractor={extractor_run}",
        )  # fmt: skip

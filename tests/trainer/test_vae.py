"""Variational autoencoder: loss terms, noise per sample, metrics, reconstructions, samples."""

import json
import math

import numpy
import pytest
import torch
from PIL import Image
from torch.distributions import Bernoulli, Normal, kl_divergence

from core.errors import ConfigError
from data.draws import BatchDraws
from data.splits import ImageSpec
from models.lightcnn import LightCNN
from models.vae import VAE
from objectives.build import build_objective
from objectives.vae import VariationalAutoencoder
from predict import main
from tests.trainer.interrupting import events, summary

SPEC = ImageSpec("tiny", 1, (8, 8), ("a", "b"), mean=(0.2,), std=(0.4,))


def objective(**settings):
    torch.manual_seed(0)
    return VariationalAutoencoder(VAE(1, (8, 8), latent_dim=3, width=4), SPEC, **settings)


@pytest.fixture
def images():
    pixels = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return (pixels - 0.2) / 0.4


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_loss_terms_equal_torch_distributions(images, likelihood):
    measured = objective(likelihood=likelihood, beta=2.0, noise_std=0.3)
    noise = torch.randn(20, 3, generator=torch.Generator().manual_seed(2))
    loss, sums = measured("train", (images, noise))
    mean, log_variance = measured.model.encoder(images)
    code = Normal(mean, (0.5 * log_variance).exp())
    logits = measured.model.decoder(code.mean + code.stddev * noise)
    pixels = images * 0.4 + 0.2
    if likelihood == "bernoulli":
        pixel_distribution = Bernoulli(logits=logits, validate_args=False)
    else:
        pixel_distribution = Normal(logits.sigmoid(), 0.3)
    reconstruction = -pixel_distribution.log_prob(pixels).sum((1, 2, 3))
    kl = kl_divergence(code, Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(loss, (reconstruction + 2 * kl).mean())
    means = {name: (value / count).item() for name, (value, count) in sums.items()}
    assert means["kl"] == pytest.approx(kl.mean().item(), rel=1e-5)
    elbo = -(reconstruction + kl).mean().item()
    assert measured.derived(means)["elbo"] == pytest.approx(elbo, rel=1e-5)


def test_noise_is_normal_and_independent_of_batching(images):
    draw = objective().with_noise
    full = draw((images, images), BatchDraws(0, 0, 0, 20, -1, 19))[1]
    part = draw((images[:6], images[:6]), BatchDraws(0, 0, 0, 20, 7, 13))[1]
    assert torch.equal(part, full[8:13])
    many = BatchDraws(0, 0, 0, 20_000, 0, 20_000).normal(3)
    assert many.mean().abs() < 0.02
    assert many.std().item() == pytest.approx(1, abs=0.02)
    assert many.isfinite().all()
    within_one = (many.abs() < 1).double().mean().item()
    assert within_one == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.01)


@torch.no_grad()
def test_evaluation_noise_is_independent_of_batch_size(images):
    measured = objective()
    full = []
    for size in (20, 6):
        measured.begin_evaluation(0)
        losses = [measured.evaluate(measured.model, (part,))[1] for part in images.split(size)]
        full.append(torch.cat([part["loss"] for part in losses]))
    torch.testing.assert_close(*full)


@torch.no_grad()
def test_metrics_compare_reconstructions_with_images(images):
    measured = objective(metrics=["psnr", "mse"])
    measured.begin_evaluation(0)
    for part in images.split(6):
        measured.evaluate(measured.model, (part,))
        if measured.next_sample == 6:
            pixels, reconstructions = measured.shown
    metrics = measured.metrics.compute()
    assert metrics["psnr"] == pytest.approx(-10 * math.log10(metrics["mse"]))
    measured.metrics.reset()
    measured.begin_evaluation(0)
    measured.evaluate(measured.model, (images[:6],))
    error = (pixels - reconstructions).square().mean().item()
    assert measured.metrics.compute()["mse"] == pytest.approx(error)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ["f1"]}, "no f1 for images; .*there are mae, .*psnr, ssim"),
        ({"metrics": ["kl"]}, "kl is recorded already"),
        ({"beta": -1.0}, "beta=-1.0 should be greater than or equal to 0"),
        ({"noise_std": 0.0}, "noise_std=0.0 should be greater than 0"),
        ({"likelihood": "poisson"}, "likelihood=poisson should be 'bernoulli' or 'gaussian'"),
    ],
)
def test_invalid_settings_are_rejected(settings, message):
    node = {"_target_": "objectives.vae.VariationalAutoencoder", **settings}
    with pytest.raises(ConfigError, match=message):
        build_objective(node, VAE(1, (8, 8), latent_dim=3, width=4), SPEC)
    with pytest.raises(ConfigError, match="LightCNN is not a VAE; use model=va"):
        VariationalAutoencoder(LightCNN(1, 2, (8, 8)), SPEC)
    with pytest.raises(ValueError, match="10x8 must be a multiple of 4"):
        VAE(1, (10, 8), 2, 4)


@pytest.mark.usefixtures("few_digits")
def test_run_reconstructs_and_generates(train, tmp_path, capsys):
    run_dir = train(
        "model=vae",
        "model.width=4",
        "trainer.max_steps=4",
        "trainer.ema_decay=0.5",
        "objective.metrics=[ssim]",
        "monitor=val/ssim",
    )
    found = summary(run_dir)
    measured = [event["val/ssim"] for event in events(run_dir) if "val/ssim" in event]
    assert found["best"]["value"] == max(measured)
    assert found["test/elbo"] == pytest.approx(-found["test/loss"])
    for picture in ("val_step_4/reconstructions", "val_step_4/samples", "reconstructions"):
        assert (run_dir / "media" / f"{picture}.png").is_file()
    digit, answers = tmp_path / "digit.png", tmp_path / "out.json"
    Image.fromarray(numpy.eye(28, dtype=numpy.uint8) * 255).save(digit)
    capsys.readouterr()
    assert main([str(run_dir), str(digit), "--json", str(answers)]) == 0
    (row,) = json.loads(answers.read_text())
    with Image.open(row["reconstruction"]) as image:
        assert image.size == (28, 28)
        pixels = numpy.asarray(image) / 255
    assert row["mse"] == pytest.approx(((pixels - numpy.eye(28)) ** 2).mean(), abs=1e-3)
    grid = tmp_path / "grid.png"
    assert main([str(run_dir), "--num-samples", "4", "--output", str(grid)]) == 0
    with Image.open(grid) as image:
        assert image.size == (58, 58)
    assert main([str(run_dir), "--test"]) == 0
    assert capsys.readouterr().out.count("(as recorded)") == 5
    assert main([str(run_dir), "--prompt", "a"]) == 1
    assert "reconstructs and generates images: give it image files" in capsys.readouterr().err

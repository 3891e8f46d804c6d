"""Diffusion: the noise schedule of arXiv:2102.09672, training targets and DDIM sampling."""

import math

import pytest
import torch

from models.diffusion import CosineDiffusion, cosine_alpha_bar


def test_noise_schedule_equals_paper_with_clipped_betas():
    def f(t):
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    alpha_bar = cosine_alpha_bar(1000)
    assert alpha_bar.shape == (1001,)
    assert alpha_bar[0] == 1
    assert 0 < alpha_bar[-1] < 1e-6
    for t in (1, 10, 250, 500, 900, 998):  # only the last step is clipped
        assert alpha_bar[t].item() == pytest.approx(f(t) / f(0), rel=1e-9)
    alpha_bar = cosine_alpha_bar(50)
    betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
    assert betas.max().item() == pytest.approx(0.999)
    assert (betas > 0).all()


def test_adding_noise_preserves_variance():
    diffusion = CosineDiffusion(100, "noise")
    images, noise = torch.ones(3, 1, 4, 4), torch.zeros(3, 1, 4, 4)
    t = torch.tensor([1, 50, 100])
    signal = diffusion.add_noise(images, noise, t)[:, 0, 0, 0]
    assert torch.allclose(signal, diffusion.alpha_bar[t].sqrt())
    variance = signal**2 + diffusion.add_noise(noise, images, t)[:, 0, 0, 0] ** 2
    assert torch.allclose(variance, torch.ones(3))


@pytest.mark.parametrize("prediction", ["velocity", "noise"])
@pytest.mark.parametrize("sample_steps", [1, 7, 100])
def test_ddim_with_perfect_denoiser_recovers_image(prediction, sample_steps):
    diffusion = CosineDiffusion(100, prediction)
    image = torch.rand(2, 1, 8, 8) * 2 - 1

    def perfect(x, t):
        alpha_bar = diffusion.alpha_bar[t].view(-1, 1, 1, 1)
        return diffusion.target(image, (x - alpha_bar.sqrt() * image) / (1 - alpha_bar).sqrt(), t)

    samples = diffusion.ddim(perfect, torch.randn(2, 1, 8, 8), sample_steps)
    assert torch.allclose(samples, image, atol=1e-3)


def test_velocity_is_noisy_image_rotated_by_90_degrees():
    """The rotation is in the plane of image and noise (arXiv:2202.00512)."""
    diffusion = CosineDiffusion(1000, "velocity")
    image, noise, t = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.tensor([1, 500, 999])
    angle = diffusion.alpha_bar[t].double().sqrt().arccos().view(-1, 1, 1, 1)
    expected = (angle + math.pi / 2).cos() * image + (angle + math.pi / 2).sin() * noise
    assert torch.allclose(diffusion.target(image, noise, t).double(), expected, atol=1e-5)


@pytest.mark.parametrize("prediction", ["velocity", "noise"])
def test_ddim_samples_stay_in_range(prediction):
    diffusion = CosineDiffusion(100, prediction)
    samples = diffusion.ddim(lambda x, t: 5 * x.sin(), torch.randn(2, 1, 8, 8), 10)
    assert samples.abs().max() <= 1

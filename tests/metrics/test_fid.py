"""Fréchet distance, and the network that computes its features."""

import numpy
import pytest
import torch
from scipy.linalg import sqrtm

from core.errors import ConfigError
from metrics.fid import Extractor, default_extractor, frechet_distance, load_extractor
from models.lightcnn import LightCNN
from trainer.checkpoint import files as checkpoint

CPU = torch.device("cpu")


def gaussian_features(count, seed, shift=0.0):
    """Return correlated Gaussian features ``(count, 16)``."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(16, 16, generator=torch.Generator().manual_seed(9))
    return torch.randn(count, 16, generator=generator) @ mix + shift


def test_frechet_distance_equals_formula_with_sqrtm():
    a, b = gaussian_features(300, 0), gaussian_features(200, 1, shift=0.5) * 1.3
    x, y = a.double().numpy(), b.double().numpy()
    cov_x, cov_y = numpy.cov(x.T), numpy.cov(y.T)
    root = sqrtm(cov_x @ cov_y).real
    means = ((x.mean(0) - y.mean(0)) ** 2).sum()
    expected = means + numpy.trace(cov_x + cov_y - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a[:5], b[:7]) > 0  # fewer samples than features


@pytest.fixture
def data(composed, data_root):
    """The loader of the default data set."""
    from core.ranks import Ranks
    from data.build import build_data

    config = composed(f"data.root={data_root}")
    return build_data(config["data"], CPU, 0, Ranks(), 1)


def test_features_do_not_depend_on_normalization_of_run(data):
    """Images in [-1, 1] are normalized as in the extractor's training."""
    network = LightCNN(1, 10, (28, 28)).eval()
    images, _ = next(data.evaluate("val"))
    in_range = 2 * (images * data.spec.std[0] + data.spec.mean[0]) - 1
    features = Extractor(network, data.spec, CPU)(in_range)
    assert features.shape == (500, 64)
    assert torch.allclose(features, network.features(images).mean((2, 3)), atol=1e-5)


def test_unusable_extractor_run_is_rejected(train, data):
    run_dir = train("debug=fast", "model=customcnn")
    with pytest.raises(ConfigError, match="is not a run of a LightCNN"):
        load_extractor(str(run_dir), data.spec, CPU)
    with pytest.raises(ConfigError, match="is not a run directory"):
        load_extractor(str(run_dir / "nowhere"), data.spec, CPU)
    config = (run_dir / "config.yaml").read_text()
    config = config.replace("models.customcnn.CustomCNN", "models.lightcnn.LightCNN")
    (run_dir / "config.yaml").write_text(config)
    with pytest.raises(ConfigError, match=r"best\.pt is damaged, or not of the model"):
        load_extractor(str(run_dir), data.spec, CPU)
    (run_dir / "config.yaml").write_text("seed: [")
    with pytest.raises(ConfigError, match=r"config\.yaml is damaged"):
        load_extractor(str(run_dir), data.spec, CPU)


def test_extractor_falls_back_to_last_checkpoint(train, data):
    run_dir = train("debug=fast")
    last = checkpoint.load(run_dir / "checkpoints" / "last.pt")["model"]
    (run_dir / "checkpoints" / "best.pt").unlink()
    used = load_extractor(str(run_dir), data.spec, CPU).network.state_dict()
    assert all(torch.equal(used[name], value) for name, value in last.items())


def test_extractor_is_cached_until_data_change(few_digits, data, tmp_path, capsys):
    images = torch.rand(100, 1, 28, 28) * 2 - 1
    state = torch.get_rng_state()
    first = default_extractor(data, tmp_path)
    assert "FID: training a LightCNN on the 210 training samples" in capsys.readouterr().out
    assert torch.equal(default_extractor(data, tmp_path)(images), first(images))
    assert capsys.readouterr().out == ""
    assert torch.equal(state, torch.get_rng_state())
    torch.set_num_threads(2)  # must not change the extractor
    data.fingerprint = "of other data"
    assert torch.equal(default_extractor(data, tmp_path)(images), first(images))
    assert "FID: training a LightCNN" in capsys.readouterr().out
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_default_extractor_classifies_digits(data, tmp_path):
    extractor = default_extractor(data, tmp_path)
    real, labels = next(data.evaluate("val"))
    assert (extractor.network(real).argmax(1) == labels).float().mean() > 0.9


@pytest.mark.slow
def test_extractor_is_trained_before_the_run(few_digits, command, data_root, tmp_path):
    """No setting is needed, and the console reports it."""
    small = ("model=dcgan", "model.width=8", "model.latent_dim=16", "debug=fast")
    done = command("train.py", *small, f"data.root={tmp_path}", "wandb.mode=disabled")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    made = next(i for i, line in enumerate(lines) if line.startswith("FID: trained in"))
    assert made < next(i for i, line in enumerate(lines) if line.startswith("step "))

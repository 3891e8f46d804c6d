"""The small classifiers have the sizes that they promise."""

import pytest
import torch

from models.build import num_parameters, weights_hash
from models.customcnn import CustomCNN
from models.lightcnn import LightCNN


def test_lightcnn_fits_embedded_devices():
    model = LightCNN(in_channels=1, num_classes=10, image_size=(28, 28))
    assert num_parameters(model) < 100_000
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_customcnn_is_the_published_one():
    model = CustomCNN(in_channels=3, num_classes=10, image_size=(32, 32))
    linear = model.classifier[0]
    assert (linear.in_features, linear.out_features) == (64 * 8 * 8, 512)
    convolutions = (3 * 9 * 32 + 32) + (32 * 9 * 64 + 64)
    assert num_parameters(model) == convolutions + (4096 * 512 + 512) + (512 * 10 + 10)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("model_class", [LightCNN, CustomCNN])
def test_image_size_that_does_not_halve_twice_is_refused(model_class):
    with pytest.raises(ValueError, match="30x28"):
        model_class(in_channels=1, num_classes=10, image_size=(30, 28))


def test_weights_hash_tells_weights_apart():
    torch.manual_seed(0)
    first = LightCNN(1, 10, (28, 28))
    torch.manual_seed(0)
    same = LightCNN(1, 10, (28, 28))
    assert weights_hash(first.state_dict()) == weights_hash(same.state_dict())
    with torch.no_grad():
        same.classifier.bias[0] += 1e-6
    assert weights_hash(first.state_dict()) != weights_hash(same.state_dict())

"""The recorded recipes hold the published settings, exactly."""


def test_imagenet_resnet50(composed):
    config = composed("experiment=imagenet_resnet50", "data.root=imagenet")
    sgd = {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4}
    assert config["optimizer"]["_target_"] == "torch.optim.SGD"
    assert {key: config["optimizer"][key] for key in sgd} == sgd
    assert config["scheduler"] == {"_target_": "optim.schedules.cosine", "eta_min": 0.0}
    assert config["trainer"]["max_epochs"] == 90
    assert config["model"]["_target_"] == "models.resnet.resnet50"
    assert config["model"]["stem"] == "imagenet"


def test_cifar10_resnet18(composed):
    config = composed("experiment=cifar10_resnet18")
    sgd = {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4}
    assert {key: config["optimizer"][key] for key in sgd} == sgd
    assert config["scheduler"] == {"_target_": "optim.schedules.cosine", "eta_min": 0.0}
    assert config["data"]["batch_size"] == 128
    assert config["trainer"]["max_epochs"] == 200


def test_mnist_vit(composed):
    config = composed("experiment=mnist_vit")
    assert config["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert config["scheduler"]["warmup_fraction"] > 0
    assert config["trainer"]["clip_grad_norm"] == 1.0

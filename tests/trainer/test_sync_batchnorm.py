"""Synchronized batch norm compared with torch's batch norm on the full batch."""

import copy

import pytest
import torch
from torch import nn

from core.errors import ConfigError
from trainer.distributed.sync_batchnorm import CpuSyncBatchNorm, synchronize_batchnorm


def cases():
    for kind, shape in (
        (nn.BatchNorm1d, (6, 5)),
        (nn.BatchNorm1d, (6, 5, 3)),
        (nn.BatchNorm2d, (6, 5, 4, 3)),
        (nn.BatchNorm3d, (6, 5, 2, 4, 3)),
    ):
        for settings in (
            {},
            {"affine": False},
            {"momentum": None},
            {"track_running_stats": False},
        ):
            yield pytest.param(kind, shape, settings, id=f"{kind.__name__}-{len(shape)}-{settings}")


@pytest.mark.usefixtures("_single_process_group")
@pytest.mark.parametrize(("kind", "shape", "settings"), list(cases()))
def test_single_process_equals_plain_batchnorm(kind, shape, settings):
    plain = nn.Sequential(kind(shape[1], **settings))
    if plain[0].affine:
        nn.init.normal_(plain[0].weight)
        nn.init.normal_(plain[0].bias)
    synchronized = copy.deepcopy(plain)
    synchronize_batchnorm(synchronized, "cpu")
    assert type(synchronized[0]) is CpuSyncBatchNorm
    for _ in range(3):
        x = 5 + 3 * torch.randn(shape)
        grad = torch.randn(shape)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        for module, module_input in zip((plain, synchronized), inputs, strict=True):
            module.zero_grad()
            module(module_input).backward(grad)
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-5)
        for own, other in zip(synchronized.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-5)
    assert synchronized.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(synchronized.state_dict(), plain.state_dict())
    torch.testing.assert_close(synchronized.eval()(x), plain.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_single_process_group")
def test_gradients_equal_finite_differences():
    layer = CpuSyncBatchNorm(3).double()
    nn.init.normal_(layer.weight)
    x = torch.randn(4, 3, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


@pytest.mark.usefixtures("_single_process_group")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_bf16_input_keeps_dtype_and_fp32_statistics(memory_format):
    plain, x = nn.BatchNorm2d(8), 2 + torch.randn(16, 8, 6, 6)
    synchronized = nn.Sequential(copy.deepcopy(plain))
    synchronize_batchnorm(synchronized, "cpu")
    x = x.bfloat16().to(memory_format=memory_format)
    y = synchronized(x)
    plain(x.float())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(synchronized[0].running_var, plain.running_var)


@pytest.mark.usefixtures("_single_process_group")
def test_single_value_per_channel_is_rejected():
    with pytest.raises(ValueError, match="more than one value per channel"):
        CpuSyncBatchNorm(3)(torch.randn(1, 3))


@pytest.mark.usefixtures("_single_process_group")
def test_timm_norms_keep_their_activation():
    from timm.layers import BatchNormAct2d

    plain = nn.Sequential(BatchNormAct2d(3, act_layer=nn.SiLU))
    synchronized = copy.deepcopy(plain)
    synchronize_batchnorm(synchronized, "cpu")
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(synchronized(x), plain(x))
    assert type(synchronized[0]) is not BatchNormAct2d


def test_cuda_uses_torch_sync_batchnorm():
    from timm.layers import BatchNormAct2d

    model = nn.Sequential(nn.BatchNorm2d(3), BatchNormAct2d(3))
    synchronize_batchnorm(model, "cuda")
    assert type(model[0]) is nn.SyncBatchNorm
    assert isinstance(model[1], nn.SyncBatchNorm)
    model.eval()(torch.randn(2, 3, 4, 4))  # evaluation works on any device


def test_unknown_batchnorm_subclass_is_rejected():
    class GhostNorm(nn.BatchNorm2d):
        pass

    model = nn.Sequential(nn.Sequential(GhostNorm(3)))
    with pytest.raises(ConfigError, match=r"0\.0 is a GhostNorm.*sync_batchnorm=false"):
        synchronize_batchnorm(model, "cpu")

"""Launching processes: failures, interruptions, uneven batches, exact evaluation."""

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from core.collectives import gather
from core.errors import ConfigError, Diverged, Interrupted, RankFailed
from core.job import Job
from core.ranks import Ranks
from core.schema import check_settings
from data.loader import Loader
from data.splits import Splits, TensorSplit
from objectives.base import Objective, mean_over_batch
from tests.trainer.processes import children
from trainer.distributed.device import NUM_THREADS, prepare_process
from trainer.distributed.elastic import launch_workers
from trainer.distributed.launch import launch
from trainer.distributed.parallel import distribute, wrap
from trainer.distributed.process_group import process_group
from trainer.distributed.sync_batchnorm import synchronize_batchnorm
from trainer.evaluation import evaluate
from trainer.metrics import Meter
from trainer.phase import PhaseCompute

THIS = __name__


def test_single_process_runs_in_place(config):
    assert launch(lambda config, job: os.getpid(), config(), Job("/nowhere")) == os.getpid()


def test_single_process_with_restarts_uses_elastic_launch(config, monkeypatch):
    monkeypatch.setattr("trainer.distributed.elastic.launch_workers", lambda _, count, *rest: count)
    assert launch(end, config("trainer.max_restarts=1"), Job("/nowhere")) == 1


@pytest.mark.parametrize("endpoint", ["null", "host", "host:port", "':29500'", "host:70000"])
def test_several_nodes_require_an_endpoint(config, endpoint):
    composed = config("trainer.num_nodes=2", f"trainer.rdzv_endpoint={endpoint}")
    with pytest.raises(ConfigError, match=r"needs trainer\.rdzv_endpoint=host:port"):
        launch(end, composed, Job("/nowhere"))


def test_unresolvable_host_is_named(config, monkeypatch):
    """torch's elastic agent would wait for minutes, and then report a rendezvous error."""

    def fail_to_resolve(host, port):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail_to_resolve)
    monkeypatch.setattr("trainer.distributed.launch.NAME_SECONDS", -1)
    composed = config("trainer.num_nodes=2", "trainer.rdzv_endpoint=node0:29500")
    with pytest.raises(ConfigError, match="cannot resolve the host node0: Name or service"):
        launch(end, composed, Job("/nowhere"))


def test_threads_are_divided_among_processes(config):
    settings = check_settings(config("trainer.num_threads=null"))
    prepare_process(settings, 0, Ranks(0, 0, 2, 2), torch.device("cpu"))
    assert torch.get_num_threads() == max(1, NUM_THREADS // 2)


def end(config, job):
    """Fail, hang or return on rank 1, as ``wandb.project`` says."""
    settings = check_settings(config)
    how = config["wandb"]["project"]
    with process_group(settings) as ranks:
        dist.barrier()
        if ranks.rank == 1:
            if how == "raise":
                raise ValueError("no such luck")
            if how == "misconfigured":
                raise ConfigError("data.batch_size=7 does not divide")
            if how == "diverge":
                raise Diverged("the loss is nan")
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "exit":
                sys.exit(3)
            if how == "interrupted":
                raise Interrupted(signal.SIGUSR1, is_agreed=True)
            if how == "only one interrupted":
                raise Interrupted(signal.SIGUSR1)
            if how == "hang":
                time.sleep(600)
        elif how == "interrupted":
            time.sleep(5)  # the last process to end may take longer
            raise Interrupted(signal.SIGUSR1, is_agreed=True)
        dist.barrier()
        return [ranks.rank, torch.get_num_threads()]


ENDINGS = [
    ("raise", RankFailed, "rank 1: ValueError: no such luck"),
    ("misconfigured", ConfigError, "data.batch_size=7 does not divide"),
    ("diverge", Diverged, "the loss is nan"),
    ("killed", RankFailed, "the process of rank 1 ended with SIGKILL"),
    ("exit", RankFailed, "the process of rank 1 ended with exit code 3"),
    ("hang", RankFailed, "a process did not answer within trainer.timeout_seconds"),
]


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        pytest.param(*ending, marks=() if ending[0] == "raise" else pytest.mark.slow, id=ending[0])
        for ending in ENDINGS
    ],
)
def test_failing_process_fails_the_job(config, tmp_path, capfd, how, kind, message):
    composed = config(f"wandb.project={how}", "trainer.devices=2", "trainer.timeout_seconds=10")
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(kind, match=message) as raised:
        launch(end, composed, Job(str(tmp_path)))
    if how == "raise":
        assert "in end" in raised.value.traceback
    assert "Traceback" not in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler
    assert children(os.getpid(), "spawn_main") == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["interrupted", "only one interrupted"])
def test_interrupted_processes_may_end_at_different_times(config, tmp_path, how):
    """The launch reports an interruption and restarts nothing, whenever the processes end.

    If one process is interrupted before the others agree, they are not waited for.
    """
    composed = config(f"wandb.project='{how}'", "trainer.devices=2")
    with pytest.raises(Interrupted) as raised:
        launch(end, composed, Job(str(tmp_path)))
    assert raised.value.signal == signal.SIGUSR1


class Mean(Objective):
    """Evaluates to the mean of the samples."""

    def evaluate(self, model, batch):
        return {"value": mean_over_batch(batch[0])}, {"value": batch[0]}


def on_three_processes(config, job):
    """Return what each rank got from evaluating 500 and 2 samples; then check uneven batches."""
    with process_group(check_settings(config)) as ranks:
        found = {}
        for size in (500, 2):
            values = torch.arange(size, dtype=torch.float32)
            splits = Splits(TensorSplit(torch.zeros(99)), TensorSplit(values), None, None)
            loader = Loader(
                splits, torch.device("cpu"), 0, ranks.rank, ranks.world_size, 1, 3, 7, 0
            )
            objective = Mean(nn.Linear(1, 1))
            means, samples = evaluate(
                objective, objective.model, loader, "val", "fp32", keep_samples=True
            )
            assert torch.equal(samples["value"], values)
            found[size] = gather(means["value"])
        meter = Meter()
        if ranks.rank == 2:
            meter.add({"loss": (torch.tensor(6.0), 3)})
        found["meter"] = gather(meter.means())
        check_uneven_batchnorm(ranks)
        check_two_phases(ranks, check_settings(config))
        return found


def check_uneven_batchnorm(ranks):
    """Processes with 2, 5 and 3 samples normalize like one process with all ten."""
    torch.manual_seed(0)
    x, grad = torch.randn(10, 4, 3).split([2, 5, 3]), torch.randn(10, 4, 3).split([2, 5, 3])
    plain, model = nn.BatchNorm1d(4), nn.Sequential(nn.BatchNorm1d(4))
    synchronize_batchnorm(model, "cpu")
    full, local = torch.cat(x).requires_grad_(), x[ranks.rank].clone().requires_grad_()
    plain(full).backward(torch.cat(grad))
    model(local).backward(grad[ranks.rank])
    rows = slice(*[(0, 2), (2, 7), (7, 10)][ranks.rank])
    torch.testing.assert_close(local.grad, full.grad[rows])
    torch.testing.assert_close(model[0].running_var, plain.running_var)
    torch.testing.assert_close(sum(gather(model[0].weight.grad)), plain.weight.grad)


class Duel(Objective):
    """Two phases that compute with all parameters, but train only their own."""

    def phases(self):
        return {"first": self.model[0], "second": self.model[1]}

    def forward(self, phase, batch):
        return self.model(batch[0]).mean(), {}


def check_two_phases(ranks, settings):
    """Each phase averages its own gradients and leaves the other's alone."""
    torch.manual_seed(ranks.rank)  # different weights per rank; those of rank 0 are broadcast
    objective = Duel(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)))
    distribute(objective, settings)
    x = torch.eye(3, 2)
    for name, module in objective.phases().items():
        compute = wrap(PhaseCompute(objective, name), module, settings)
        objective.zero_grad()
        compute((x[ranks.rank : ranks.rank + 1],))[0].backward()
        averaged = [parameter.grad.clone() for parameter in module.parameters()]
        objective.zero_grad()
        objective(name, (x,))[0].backward()
        torch.testing.assert_close(averaged, [p.grad for p in module.parameters()])


@pytest.mark.slow
def test_three_processes_evaluate_every_sample_once(config, tmp_path):
    composed = config("trainer.devices=3")
    run = (THIS, "on_three_processes")
    found = launch_workers(check_settings(composed), 3, run, composed, Job(str(tmp_path)))
    assert found == {500: [249.5] * 3, 2: [0.5] * 3, "meter": [{"loss": 2.0}] * 3}


def listening_addresses(config, job):
    """The addresses, in hexadecimal, that this process and its launcher listen on."""
    with process_group(check_settings(config)):
        sockets = set()
        for process in (os.getpid(), os.getppid()):
            for link in Path(f"/proc/{process}/fd").iterdir():
                with suppress(OSError):  # closed meanwhile
                    sockets.add(os.readlink(link).removeprefix("socket:[").rstrip("]"))
        tables = [
            Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")
        ]
        rows = [line.split() for table in tables for line in table]
        # column 1 is the address, 3 the state (0A: listening), 9 the socket
        found = [row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets]
        return gather(found)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/net")
def test_single_node_listens_only_on_loopback(config, tmp_path):
    composed = config("trainer.devices=2")
    run = (THIS, "listening_addresses")
    found = launch_workers(check_settings(composed), 2, run, composed, Job(str(tmp_path)))
    loopback = {"0100007F", "00000000000000000000000001000000"}
    assert {address for addresses in found for address in addresses} <= loopback

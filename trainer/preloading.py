"""Imported once by the server that the processes of a job are forked from: what takes them time.

What is missing here every process imports by itself; see ``start_method`` of the launch.
"""

from importlib import import_module

from trainer.script import importing

MODULES = (
    "torch.distributed.elastic.multiprocessing.api",
    "data.build",
    "objectives.build",
    "trainer.trainer",
)

with importing():
    for module in MODULES:
        import_module(module)

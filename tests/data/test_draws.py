"""Random numbers by position: no two processes, seeds or samples share them."""

import random

import numpy
import torch

from data.draws import BatchDraws, kept_global_generators, seed_process


def test_no_two_processes_of_neighbouring_seeds_draw_alike():
    drawn = []
    with kept_global_generators():
        for seed in range(100, 105):
            for rank in range(4):
                seed_process(torch.device("cpu"), seed, rank)
                drawn.append([float(torch.rand(1)), numpy.random.rand(), random.random()])
    for numbers in zip(*drawn, strict=True):
        assert len(set(numbers)) == 20


def test_every_sample_has_a_seed_of_its_own():
    seeds = BatchDraws(0, 0, 0, 1000, 0, 1000).seeds()
    assert len(set(seeds)) == 1000
    assert seeds[300:500] == BatchDraws(0, 0, 0, 1000, 300, 500).seeds()

"""Running networks: folding and lower precision change next to nothing, layers are polled, devices are chosen in plain
words.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import mkd_core
from mkd_core.errors import Cancelled, DeviceError
from mkd_core.inference import execution
from mkd_core.io.bundle import load_bundle
from mkd_core.method import networks
from Testing.support.known_heart import KnownBundle, known_volume

ROOT = Path(__file__).resolve().parents[2]


def trained_like(architecture: dict) -> torch.nn.Module:
    """A network whose batch statistics are not those of the beginning."""
    torch.manual_seed(0)
    network = networks.build(architecture)
    for _ in range(3):
        network(torch.randn(2, 1, 16, 16, 16) * 2 + 1)
    return network.eval()


def test_folding_batch_normalisation_changes_nothing_and_leaves_none():
    network = trained_like({"type": "segmentor", "channels": [4, 8, 8]})
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        expected = network(image)
        execution.fold_batch_norm(network)
        assert torch.allclose(network(image), expected, atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in network.modules())


@pytest.mark.parametrize("part", ["segmentor_real", "generator_a2t", "localiser"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_an_executor_gives_what_the_network_gives(tiny_bundle_path, part, precision):
    bundle = load_bundle(tiny_bundle_path)
    image = torch.rand(1, 1, 16, 8, 12) * 2 - 1
    with torch.no_grad():
        expected = bundle.network(part)(image)
    executor = execution.Executor(bundle, torch.device("cpu"), precision)
    given = executor.run(part, image)
    assert given.dtype == torch.float32 and given.device.type == "cpu"
    tolerance = 1e-5 if precision == torch.float32 else 0.03
    assert (given - expected).abs().max() < tolerance * max(1.0, float(expected.abs().max()))
    assert torch.equal(executor.run(part, image), given)
    assert executor.prepare(part) is executor.prepare(part)
    assert any(
        isinstance(m, torch.nn.BatchNorm3d) for m in bundle.network("localiser").modules()
    )  # the bundle's own is untouched


def test_a_convolution_to_one_channel_in_blocks_gives_the_same():
    torch.manual_seed(0)
    image = torch.randn(1, 1, 12, 8, 10)
    network = networks.build({"type": "generator", "channels": 4, "blocks": 1}).eval()
    for padded in ("replicate", "zeros"):
        network.head = torch.nn.Conv3d(5, 1, 3, padding=1, padding_mode=padded)
        with torch.no_grad():
            expected = network(image)
            execution.compute_single_channels_in_blocks(network)
            assert not isinstance(network.head, torch.nn.Conv3d)
            assert torch.allclose(network(image), expected, atol=1e-6)


def test_a_poll_that_raises_stops_between_layers_and_the_network_works_again(tiny_bundle_path):
    executor = execution.Executor(load_bundle(tiny_bundle_path), torch.device("cpu"), torch.float32)
    image = torch.zeros(1, 1, 8, 8, 8)
    calls = []

    def stop_at_the_fifth():
        calls.append(1)
        if len(calls) == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        executor.run("segmentor_real", image, stop_at_the_fifth)
    assert len(calls) == 5
    assert executor.run("segmentor_real", image).shape == (1, 8, 8, 8, 8)
    assert len(calls) == 5


def test_executors_of_one_bundle_share_networks_and_nothing_that_happens_in_a_run():
    bundle, cpu = KnownBundle(), torch.device("cpu")
    first, second = (execution.Executor(bundle, cpu, torch.float32, True) for _ in range(2))
    assert first.prepare("segmentor_real") is second.prepare("segmentor_real")
    assert execution.Executor(bundle, cpu, torch.bfloat16).prepare("segmentor_real") is not first.prepare(
        "segmentor_real"
    )
    assert execution.Executor(KnownBundle(), cpu, torch.float32).prepare("segmentor_real") is not first.prepare(
        "segmentor_real"
    )
    first.fell_back = first.was_split = True
    assert not second.fell_back and not second.was_split


def test_networks_go_with_the_bundle_they_were_made_of():
    bundle = KnownBundle()
    network = weakref.ref(execution.Executor(bundle, torch.device("cpu"), torch.float32).prepare("segmentor_real"))
    assert network() is not None
    del bundle
    gc.collect()
    assert network() is None


def test_threads_are_set_inside_the_block_only():
    before = torch.get_num_threads()
    with execution.compute_settings(before + 1) as threads:
        assert threads == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_overlapping_runs_have_their_own_number_of_threads_and_leave_the_hosts_behind():
    before, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    inside, others_done = threading.Barrier(2, timeout=600), threading.Event()
    counts, few, many = {}, before + 1, before + 2

    def run(wanted, ends_last):
        with execution.compute_settings(wanted) as threads:
            inside.wait()
            counts[wanted] = (threads, torch.get_num_threads())
            inside.wait()
            if ends_last:
                others_done.wait(600)
        if not ends_last:
            others_done.set()

    runs = [threading.Thread(target=run, args=given) for given in ((few, False), (many, True))]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert counts == {few: (few, few), many: (many, many)}
    found = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [before] and torch.get_num_threads() == before
    assert torch.backends.cudnn.deterministic == deterministic


def test_a_cancel_never_reaches_another_run_and_results_are_those_of_runs_one_by_one():
    bundle = KnownBundle()
    images = [known_volume((28, 23, 25), (8, 8, 8))[0], known_volume((26, 25, 25), (8.5, 8, 8))[0]]
    options = mkd_core.SegmentationOptions(device="cpu", precision="float32", threads=1)

    def labels(image, cancelled=None):
        return sitk.GetArrayFromImage(mkd_core.segment(image, bundle, options=options, cancelled=cancelled).labels)

    polls_of_a_run = []
    alone = [labels(image, lambda: bool(polls_of_a_run.append(1))) for image in images]
    most = len(polls_of_a_run) // 2 - 1
    random = np.random.default_rng(0)

    def cancelled_after(polls):
        left = iter(range(polls))
        return lambda: next(left, None) is None

    def outcome(image, cancelled):
        try:
            return labels(image, cancelled)
        except Cancelled:
            return None

    with ThreadPoolExecutor(2) as pool:
        for trial in range(100):
            polls = int(random.integers(most))
            stopped = pool.submit(outcome, images[trial % 2], cancelled_after(polls))
            other = pool.submit(outcome, images[1 - trial % 2], None)
            assert stopped.result(300) is None, "what is cancelled ends as cancelled"
            assert np.array_equal(other.result(300), alone[1 - trial % 2])


#: Segments, forks, and segments again in the child; prints whether both labelled the same, and the child's threads.
FORKED = """
import multiprocessing as mp
import numpy as np, SimpleITK as sitk, mkd_core
from Testing.support.known_heart import KnownBundle, known_volume
bundle, image = KnownBundle(), known_volume((44, 36, 40), (5, 5, 5))[0]
def one(threads):
    result = mkd_core.segment(image, bundle, options=mkd_core.SegmentationOptions(device="cpu", threads=threads))
    return sitk.GetArrayFromImage(result.labels), result.report["threads"]
before, threads = one(2)
with mp.get_context("fork").Pool(2) as pool:
    for after, used in pool.map(one, [None, 2]):
        print(np.array_equal(before, after), used)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_forked_after_a_run_computes_with_one_thread_instead_of_hanging():
    done = subprocess.run([sys.executable, "-c", FORKED], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.stdout.split() == ["True", "1", "True", "1"], done.stderr


def test_half_precision_is_never_chosen_by_itself():
    assert execution.choose_precision("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    assert execution.choose_precision("auto", torch.device("mps")) == torch.float32
    assert execution.choose_precision("bfloat16", torch.device("cpu")) == torch.bfloat16
    assert execution.choose_device("cpu").type == "cpu"


class Small(torch.nn.Module):
    """A convolution that reaches 2 voxels far, on a computer whose memory holds only so many voxels."""

    strides = (4, 4, 4)

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Conv3d(1, 8, 5, padding=2)
        self.most, self.error, self.sizes = most, error, []

    def __deepcopy__(self, memo):
        return self

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.numel() > self.most:
            raise self.error
        self.sizes.append(tuple(image.shape[2:]))
        return self.body(image)


WORDS_FOR_NO_MEMORY = [
    MemoryError(),
    torch.cuda.OutOfMemoryError("CUDA out of memory"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 8 bytes."
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 "
        "bytes."
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB)"),
]


@pytest.mark.parametrize("error", WORDS_FOR_NO_MEMORY, ids=lambda error: str(error)[:20] or "MemoryError")
def test_what_does_not_fit_into_memory_is_computed_in_parts_with_the_same_result(error):
    image = torch.randn(1, 1, 96, 40, 48)
    network = Small(most=40 * 40 * 48, error=error)
    executor = execution.Executor(KnownBundle(segmentor_real=network), torch.device("cpu"), torch.float32)
    found = executor.run("segmentor_real", image)
    assert len(network.sizes) > 2 and all(side % 4 == 0 for size in network.sizes for side in size)
    assert executor.was_split and not executor.fell_back
    assert torch.allclose(found, network.body(image), atol=1e-5)


def test_what_does_not_fit_even_in_small_parts_is_told_and_other_errors_stay_what_they_are():
    executor = execution.Executor(
        KnownBundle(segmentor_real=Small(0, MemoryError())), torch.device("cpu"), torch.float32
    )
    with pytest.raises(DeviceError, match="This computer ran out of memory"):
        executor.run("segmentor_real", torch.zeros(1, 1, 64, 64, 64))
    executor = execution.Executor(
        KnownBundle(segmentor_real=Small(0, RuntimeError("shapes differ"))), torch.device("cpu"), torch.float32
    )
    with pytest.raises(RuntimeError, match="shapes differ"):
        executor.run("segmentor_real", torch.zeros(1, 1, 64, 64, 64))


def test_another_device_without_memory_hands_over_to_the_processor_only_if_it_may():
    class OnlyHere(Small):
        """There is memory on the CPU only."""

        def forward(self, image):
            if image.device.type != "cpu":
                raise RuntimeError("MPS backend out of memory")
            return super().forward(image.float())

    bundle, image = KnownBundle(segmentor_real=OnlyHere(10**9, MemoryError())), torch.ones(1, 1, 8, 8, 8)
    executor = execution.Executor(bundle, torch.device("meta"), torch.float32, may_fall_back=True)
    bundle.network("segmentor_real").to = lambda *given, **named: bundle.network(
        "segmentor_real"
    )  # weights stay, only images go to the device
    assert executor.run("segmentor_real", image).shape == (1, 8, 8, 8, 8)
    assert executor.fell_back and executor.device.type == "cpu"
    with pytest.raises(DeviceError, match="“meta” ran out of memory"):
        execution.Executor(bundle, torch.device("meta"), torch.float32).run("segmentor_real", image)

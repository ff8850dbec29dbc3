"""Running networks: folding and lower precision change next to nothing, layers are polled, devices are chosen in plain
words.
"""

from __future__ import annotations

import pytest
import torch

from Testing.support.known_heart import KnownBundle
from mkd_core.errors import Cancelled, DeviceError
from mkd_core.inference import execution
from mkd_core.io.bundle import load_bundle
from mkd_core.method import networks


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


def test_the_executor_is_kept_for_the_same_purpose_only():
    bundle, cpu = KnownBundle(), torch.device("cpu")
    first = execution.executor_for(bundle, cpu, torch.float32, True)
    assert execution.executor_for(bundle, cpu, torch.float32, True) is first
    assert execution.executor_for(bundle, cpu, torch.bfloat16, True) is not first
    again = execution.executor_for(bundle, cpu, torch.float32, True)
    again.fell_back = True
    assert execution.executor_for(bundle, cpu, torch.float32, True) is not again  # memory may be free again
    assert execution.executor_for(KnownBundle(), cpu, torch.float32, True).bundle is not bundle


def test_threads_are_set_inside_the_block_only():
    before = torch.get_num_threads()
    with execution.thread_count(1) as threads:
        assert threads == torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_half_precision_is_never_chosen_by_itself():
    assert execution.choose_precision("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    assert execution.choose_precision("auto", torch.device("mps")) == torch.float32
    assert execution.choose_precision("bfloat16", torch.device("cpu")) == torch.bfloat16
    assert execution.choose_device("cpu").type == "cpu"


class Small(torch.nn.Module):
    """A convolution that reaches 2 voxels far, on a computer whose memory holds only so many voxels."""

    stride = 4

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
    torch.OutOfMemoryError("CUDA out of memory"),
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
    assert len(network.sizes) > 2 and all(side % network.stride == 0 for size in network.sizes for side in size)
    assert executor.was_split and not executor.fell_back
    assert torch.allclose(found, network.body(image), atol=1e-5)
    assert execution.executor_for(executor.bundle, executor.device, torch.float32, False) is not executor


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

"""How networks are run: device, precision, threads, memory layout; prompt stop.

Batch normalisation is folded into the convolutions.  Channels-last layout and, where the processor computes in it,
bfloat16 make a segmentor about 2.5 times as fast as plain float32; generators gain from bfloat16 and do not care about
the layout.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mkd_core.errors import BundleError, DeviceError
from mkd_core.inference.memory import release_memory
from mkd_core.measure.messages import finding, refusal
from mkd_core.method.networks import Stream, StreamNorm, select_stream, strides_of
from mkd_core.method.strides import Strides
from mkd_core.protocol import DEVICE_KINDS, PRECISIONS


class Networks(Protocol):
    """Where networks come from: a bundle, or another file of weights."""

    def network(self, part: str) -> nn.Module:
        """A network with its weights, float32 on the CPU, in evaluation mode."""


#: How torch says that memory ran out where it has no exception for it: on the CPU (Linux, Windows), on Metal, in a
#: driver.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "allocate memory", "not enough memory", "out of memory")

#: Voxels that parts of an image, computed one after the other for lack of memory, have in common on either side of the
#: cut, at least.
_OVERLAP = 16


def choose_device(wanted: str) -> torch.device:
    """Device for "auto" (first CUDA device, else CPU), "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        DeviceError: there is no such device here.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = wanted.partition(":")
    if kind not in DEVICE_KINDS or (number and not (kind == "cuda" and number.isdecimal())):
        raise refusal(finding("device_unknown", value=wanted[:100]), DeviceError)
    if kind == "cuda" and not torch.cuda.is_available():
        raise refusal(finding("device_no_cuda"), DeviceError)
    if kind == "cuda" and number and int(number) >= torch.cuda.device_count():
        raise refusal(finding("device_no_such_cuda", number=number), DeviceError)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise refusal(finding("device_no_metal"), DeviceError)
    return torch.device(wanted)


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """Number format for "auto", "float32" or "bfloat16".

    "auto" takes bfloat16 where the device computes in it, float32 elsewhere.  float16 is never used: on CPU it is
    emulated and far slower.

    Raises:
        DeviceError: unknown precision.
    """
    if wanted not in PRECISIONS:
        raise refusal(finding("option_precision", value=wanted[:100], choices=", ".join(PRECISIONS)), DeviceError)
    if wanted == "auto":
        fast = {"cpu": _cpu_computes_bfloat16, "cuda": torch.cuda.is_bf16_supported}.get(device.type, lambda: False)
        return torch.bfloat16 if fast() else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wanted]


def _cpu_computes_bfloat16() -> bool:
    if hasattr(torch.cpu, "get_capabilities"):  # torch 2.10 and newer
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as info:
        flags = next((line.split() for line in info if line.startswith("flags")), [])
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


class _ProcessSettings:
    """Settings of torch that belong to the process, held for the runs that are under way.

    Runs may overlap in several threads.  The first keeps what the host program had set, the last gives it back; in
    between every run has its own number of threads, because OpenMP counts them for each thread that starts a loop.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs = 0
        self._host_threads = 0
        self._restore = contextlib.ExitStack()

    def enter(self, wanted: int | None) -> int:
        """Begin a run; returns the number of CPU threads that it computes with."""
        with self._lock:
            if self._runs == 0:
                self._host_threads = torch.get_num_threads()
                self._restore.enter_context(_reproducible())
            self._runs += 1
            threads = wanted or min(self._host_threads, os.cpu_count() or 1)
            if _forked:
                threads = 1
            torch.set_num_threads(threads)
            return threads

    def leave(self) -> None:
        """End a run."""
        with self._lock:
            torch.set_num_threads(1 if _forked else self._host_threads)
            self._runs -= 1
            if self._runs == 0:
                self._restore.close()


_settings = _ProcessSettings()

#: Whether this process was forked from one that had loaded torch.
_forked = False


def _after_fork() -> None:
    # OpenMP's threads stay behind in the parent, and a loop that waits for them never ends; one thread waits for none.
    global _settings, _forked
    _forked = True
    _settings = _ProcessSettings()
    _shared.reset()  # a lock that another thread of the parent held stays locked for ever


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def compute_settings(threads: int | None) -> Iterator[int]:
    """Settings of a run, for the ``with`` block: CPU threads, and the same numbers from the same input on CUDA.

    Runs in several threads may overlap.  A process that was forked after torch was loaded computes with one thread,
    whatever is asked for; start processes by ``spawn`` to use more.

    Args:
        threads: how many, None for torch's own choice.

    Yields:
        The number in use.
    """
    used = _settings.enter(threads)
    try:
        yield used
    finally:
        _settings.leave()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One CPU thread, for the ``with`` block of a run: where steps are small, several wait longer for each other than
    they work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


#: Part, stream of images, device and number format.
_Key = tuple[str, Stream, torch.device, torch.dtype]


class _SharedNetworks:
    """Networks ready for a device, shared by all runs with the same bundle; nothing in them changes.

    They are kept as long as the bundle is.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew, without networks."""
        self._lock = threading.Lock()
        self._prepared: weakref.WeakKeyDictionary[Networks, dict[_Key, nn.Module]] = weakref.WeakKeyDictionary()

    def get(
        self, bundle: Networks, part: str, stream: Stream, device: torch.device, precision: torch.dtype
    ) -> nn.Module:
        """A network folded, converted and moved to a device; made at the first call."""
        with self._lock:
            networks = self._prepared.setdefault(bundle, {})
            network = bundle.network(part)
            if not any(isinstance(module, StreamNorm) for module in network.modules()):
                stream = "target"  # sees both alike, and is kept once
            key = (part, stream, device, precision)
            if key not in networks:
                networks[key] = _prepare(network, stream, device, precision)
            return networks[key]

    def forget(self, bundle: Networks, device: torch.device) -> None:
        """Drop a bundle's networks on a device, whose memory ran out."""
        with self._lock:
            networks = self._prepared.get(bundle, {})
            for key in [key for key in networks if key[2] == device]:
                del networks[key]


_shared = _SharedNetworks()

#: What the run that computes in this thread calls before every layer.
_poll: contextvars.ContextVar[Callable[[], None]] = contextvars.ContextVar("poll", default=lambda: None)


def _poll_before_layer(*_: object) -> None:
    _poll.get()()


def _prepare(network: nn.Module, stream: Stream, device: torch.device, precision: torch.dtype) -> nn.Module:
    network = copy.deepcopy(network)
    select_stream(network, stream)
    fold_batch_norm(network)
    if device.type == "cpu" and all(stride % 2 == 0 for stride in strides_of(network)):
        compute_single_channels_in_blocks(network)
    network = network.to(device, precision)
    if _has_fast_layout(network):
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    for layer in network.modules():
        if not any(layer.children()):
            layer.register_forward_pre_hook(_poll_before_layer)
    return network


class Executor:
    """Runs a bundle's networks on one device in one precision, for one run.

    Networks are prepared at their first use and shared with other executors of the same bundle; what happens in a run
    (a fall-back, a split, the wish to stop) is this executor's alone.

    Args:
        bundle: the weights, as anything that has networks.
        device: where to run.
        precision: number format of weights and activations.
        may_fall_back: go on with the CPU when another device runs out of memory; ``device`` and ``fell_back`` then say
            so.

    When the CPU runs out of memory, an image is computed in parts; ``was_split`` then says so.
    """

    def __init__(
        self, bundle: Networks, device: torch.device, precision: torch.dtype, may_fall_back: bool = False
    ) -> None:
        self.bundle = bundle
        self.device = device
        self.precision = precision
        self.may_fall_back = may_fall_back
        self.fell_back = False
        self.was_split = False

    def run(
        self,
        part: str,
        image: torch.Tensor,
        poll: Callable[[], None] = lambda: None,
        stream: Stream = "target",
    ) -> torch.Tensor:
        """Apply a network.

        Args:
            part: name of the network in the bundle.
            image: ``(1, 1, D, H, W)``.
            poll: called before every layer; may raise to stop.
            stream: of which the image is, see :func:`mkd_core.method.networks.select_stream`.

        Returns:
            What the network gives, float32, on the CPU.

        Raises:
            DeviceError: the device ran out of memory, and so did the CPU where it may step in, even for small parts of
                the image.
            BundleError: what the network gives are no numbers, as large weights make it do.
        """
        try:
            prediction = self._forward(part, image, poll, stream)
            if not torch.isfinite(prediction.sum()):
                raise refusal(finding("weights_no_numbers"), BundleError)
            return prediction
        except (MemoryError, RuntimeError) as error:  # torch.cuda.OutOfMemoryError is a RuntimeError
            if not _is_lack_of_memory(error):
                raise
            lack = error.with_traceback(None)  # the traceback would keep the layers' tensors
        release_memory()
        if self.device.type != "cpu":
            if not self.may_fall_back:
                raise refusal(finding("device_memory", device=str(self.device)), DeviceError) from lack
            _shared.forget(self.bundle, self.device)
            self.device = torch.device("cpu")
            self.precision = choose_precision("auto", self.device)
            self.fell_back = True
            return self.run(part, image, poll, stream)
        halves = _halves(image, strides_of(self.bundle.network(part)))
        if halves is None:
            raise refusal(finding("memory"), DeviceError) from lack
        self.was_split = True
        axis, parts = halves
        return torch.cat(
            [self.run(part, image.narrow(axis, *given), poll, stream).narrow(axis, *kept) for given, kept in parts],
            dim=axis,
        )

    def _forward(self, part: str, image: torch.Tensor, poll: Callable[[], None], stream: Stream) -> torch.Tensor:
        network = self.prepare(part, stream)
        token = _poll.set(poll)
        try:
            with torch.inference_mode():
                given = image.to(self.device, self.precision)
                if _has_fast_layout(network):
                    given = given.contiguous(memory_format=torch.channels_last_3d)
                scores: torch.Tensor = network(given)
                return scores.float().cpu().contiguous()
        finally:
            _poll.reset(token)

    def prepare(self, part: str, stream: Stream = "target") -> nn.Module:
        """The network folded, converted and moved to the device."""
        return _shared.get(self.bundle, part, stream, self.device, self.precision)


def _is_lack_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or any(
        words in str(error) for words in _OUT_OF_MEMORY
    )


def _halves(image: torch.Tensor, strides: Strides) -> tuple[int, list[tuple[tuple[int, int], tuple[int, int]]]] | None:
    """How to cut an image in two overlapping parts, across its longest side.

    Args:
        image: ``(1, 1, D, H, W)``, sides multiples of ``strides``.
        strides: of the network, (z, y, x); sides of the parts are multiples of them too.

    Returns:
        The axis, and for each part what to compute and what to keep of the result, as (start, length); None if the
        parts would not be smaller.
    """
    axis = max(range(2, 5), key=lambda number: image.shape[number])
    side, stride = image.shape[axis], strides[axis - 2]
    overlap = stride * -(-_OVERLAP // stride)
    cut = stride * -(-side // (2 * stride))
    if cut + overlap >= side:
        return None
    return axis, [((0, cut + overlap), (0, cut)), ((cut - overlap, side - cut + overlap), (overlap, side - cut))]


def fold_batch_norm(network: nn.Module) -> None:
    """Fold every batch normalisation that follows a convolution into its weights, in place; the network computes the
    same.
    """
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for name, following in zip(list(module._modules), list(module._modules)[1:]):
                first, second = module._modules[name], module._modules[following]
                second = second.chosen if isinstance(second, StreamNorm) else second
                if isinstance(first, nn.Conv3d) and isinstance(second, nn.BatchNorm3d):
                    module._modules[name] = fuse_conv_bn_eval(first, second)
                    module._modules[following] = nn.Identity()


class _InBlocks(nn.Module):
    """A convolution to one channel, computed for 2 x 2 x 2 voxels at a time: as eight channels of a convolution with
    stride 2.

    A processor computes 16 channels in the time of one, so this is much faster, and the result is the same.

    Args:
        convolution: of stride 1, with one output channel and padding that keeps the size; the image's sides must be
            even.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        side = convolution.kernel_size[0]
        weight = torch.zeros(8, convolution.in_channels, side + 1, side + 1, side + 1)
        for channel, (z, y, x) in enumerate(itertools.product((0, 1), repeat=3)):
            weight[channel, :, z : z + side, y : y + side, x : x + side] = convolution.weight[0]
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if convolution.bias is None else nn.Parameter(convolution.bias.repeat(8), requires_grad=False)
        self.margin = 6 * (side // 2,)
        self.mode = {"zeros": "constant"}.get(convolution.padding_mode, convolution.padding_mode)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(N, C, D, H, W)`` to ``(N, 1, D, H, W)``."""
        blocks = functional.conv3d(functional.pad(image, self.margin, mode=self.mode), self.weight, self.bias, stride=2)
        count, _, *halves = blocks.shape
        return (
            blocks.reshape(count, 2, 2, 2, *halves)
            .permute(0, 4, 1, 5, 2, 6, 3)
            .reshape(count, 1, *(2 * side for side in halves))
        )


def compute_single_channels_in_blocks(network: nn.Module) -> None:
    """Replace every convolution to one channel, in place, by one that computes eight voxels at a time; the network
    computes the same.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if (
                isinstance(child, nn.Conv3d)
                and child.out_channels == 1
                and child.kernel_size == (3, 3, 3)
                and child.padding == (1, 1, 1)
                and child.stride == child.dilation == (1, 1, 1)
            ):
                setattr(module, name, _InBlocks(child))


def _has_fast_layout(network: nn.Module) -> bool:
    return not any(isinstance(module, nn.InstanceNorm3d) for module in network.modules())


@contextlib.contextmanager
def _reproducible() -> Iterator[None]:
    """Same input, same output on CUDA: no benchmarking of algorithms, none that adds in random order, no TF32."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield

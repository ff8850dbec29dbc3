"""How much work a segmentation does: counted, not timed, so that a loss of speed shows on every computer."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch.utils.flop_counter import FlopCounterMode

import mkd_core
from mkd_core import SegmentationOptions
from mkd_core.inference import execution, resampling
from mkd_core.inference.geometry import Grid, OrientedVolume, overlap_slices
from mkd_core.io.bundle import default_bundle_path, load_bundle
from mkd_core.method import ensemble
from Testing.support.known_heart import KnownBundle, known_volume

#: Floating-point operations per voxel of the box, of the default weights' four networks there.
SEGMENTOR_FLOP, GENERATOR_FLOP = 130e3, 14e3


@pytest.fixture()
def passes(monkeypatch):
    """Counts forward passes and voxels per network."""
    counted: dict[str, list[int]] = {}
    forward = execution.Executor._forward

    def counting(self, part, image, poll, stream):
        counted.setdefault(part, []).append(image.numel())
        return forward(self, part, image, poll, stream)

    monkeypatch.setattr(execution.Executor, "_forward", counting)
    return counted


def options(**changes) -> SegmentationOptions:
    """One thread on the processor."""
    return SegmentationOptions(device="cpu", threads=1, **changes)


def box_voxels(report: dict, spacing: float) -> int:
    """Voxels of the box that was segmented."""
    low, high = report["heart_box_mm"]["low"], report["heart_box_mm"]["high"]
    return int(np.prod([round((b - a) / spacing) for a, b in zip(low, high)]))


@pytest.mark.parametrize(("alignment", "generators"), [("cycle", 2), ("none", 0), ("mean", 2)])
def test_every_network_runs_once_over_the_box_and_the_localiser_over_the_mirror_image_too(
    passes, alignment, generators
):
    image, _ = known_volume((84, 68, 76), (2.5, 2.5, 2.5))
    report = mkd_core.segment(image, KnownBundle(), options=options(alignment=alignment)).report
    box = box_voxels(report, 3.0)
    whole, mirrored = passes.pop("localiser")
    assert mirrored <= whole
    assert passes.pop("segmentor_real") == [box]
    assert passes.pop("segmentor_syn") == [box] * (2 if alignment == "mean" else 1)
    assert list(itertools.chain.from_iterable(passes.values())) == [box] * generators


def test_the_box_does_not_grow_with_the_field_of_view_and_voxels(passes):
    boxes = []
    for size, spacing in (((84, 68, 76), 2.5), ((140, 120, 130), 2.5), ((168, 136, 152), 1.25)):
        image, _ = known_volume(size, (spacing,) * 3)
        mkd_core.segment(image, KnownBundle(), options=options())
        boxes.append(passes["segmentor_real"].pop())
    assert max(boxes) <= 1.3 * min(boxes)


def test_the_networks_take_no_more_operations_than_their_convolutions_and_a_second_run_prepares_nothing():
    bundle = load_bundle(default_bundle_path())
    executor = execution.Executor(bundle, torch.device("cpu"), torch.float32)
    image = torch.zeros(1, 1, 32, 32, 32)
    for part, most in (("segmentor_real", SEGMENTOR_FLOP), ("generator_a2t", GENERATOR_FLOP)):
        with FlopCounterMode(display=False) as counter:
            executor.run(part, image)
        assert 0.5 * most < counter.get_total_flops() / image.numel() < most
    prepared = executor.prepare("segmentor_real")
    again = execution.Executor(bundle, torch.device("cpu"), torch.float32)
    again.run("segmentor_real", image)
    assert again.prepare("segmentor_real") is prepared


def operators(call) -> Counter:
    """How often each torch operator runs during a call."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        """Counts."""

        def __init__(self):
            super().__init__()
            self.counted = Counter()

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            self.counted[function.overloadpacket.__name__] += 1
            return function(*arguments, **(keywords or {}))

    with Counting() as counting:
        call()
    return counting.counted


def test_a_prepared_segmentor_normalises_nothing_and_copies_no_weights():
    bundle = load_bundle(default_bundle_path())
    executor = execution.Executor(bundle, torch.device("cpu"), torch.float32)
    image = torch.zeros(1, 1, 32, 32, 32)
    executor.prepare("segmentor_real")
    counted = operators(lambda: executor.run("segmentor_real", image))
    assert not any("norm" in name for name in counted)
    convolutions = sum(
        isinstance(module, (torch.nn.Conv3d, torch.nn.ConvTranspose3d))
        for module in bundle.network("segmentor_real").modules()
    )
    assert sum(count for name, count in counted.items() if "conv" in name) == convolutions, counted


def largest_tensor(call) -> int:
    """Most elements of any tensor that is made during a call."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        """Remembers the largest result."""

        largest = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            for tensor in result if isinstance(result, (list, tuple)) else [result]:
                if isinstance(tensor, torch.Tensor):
                    self.largest = max(self.largest, tensor.numel())
            return result

    with Largest() as measuring:
        call()
    return measuring.largest


def ball_scores(side: int) -> torch.Tensor:
    """Probabilities of a ball of class 1 in background, ``(8, side, side, side)``, with a soft edge."""
    axis = torch.arange(side) - (side - 1) / 2
    distance = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    inside = torch.sigmoid(2.0 * (0.3 * side - distance))
    scores = torch.zeros(8, side, side, side)
    scores[0], scores[1] = 1 - inside, inside
    return scores


def test_scores_of_the_volume_are_never_held_and_only_tiles_with_an_edge_are_interpolated():
    field = OrientedVolume(sitk.Image((240, 240, 240), sitk.sitkInt16))
    scores, grid = ball_scores(120), Grid((120, 120, 120), (0.5, 0.5, 0.5), 2.0)
    block = overlap_slices(grid, field)
    labels = np.zeros([side.stop - side.start for side in block], np.uint8)
    assert (
        largest_tensor(lambda: list(resampling.write_labels(scores, grid, field, labels)))
        <= scores.numel()
        < 8 * labels.size / 7
    )
    counted = operators(lambda: list(resampling.write_labels(scores, grid, field, labels)))
    tiles = 10**3
    edge = sum(
        np.unique(labels[24 * i : 24 * i + 25, 24 * j : 24 * j + 25, 24 * k : 24 * k + 25]).size > 1
        for i in range(10)
        for j in range(10)
        for k in range(10)
    )
    assert 0 < counted["full"] <= 1.2 * edge < 0.7 * tiles


def test_a_rough_look_at_a_finer_volume_reads_no_more_voxels(monkeypatch):
    read = []
    contract = resampling._contract

    def counting(voxels, matrices):
        read.append(voxels.size)
        return contract(voxels, matrices)

    monkeypatch.setattr(resampling, "_contract", counting)
    grid = Grid((16, 16, 16), (5.0, 5.0, 5.0), 5.0)
    for step in (1.0, 0.5, 0.25):
        image = sitk.Image([round(80 / step)] * 3, sitk.sitkInt16)
        image.SetSpacing([step] * 3)
        resampling.sample(OrientedVolume(image), grid, sparsely=True)
    assert read[0] == 80**3 == max(read)


def test_removing_islands_labels_parts_only_inside_the_structures_boxes(monkeypatch):
    looked_at = []
    parts = ensemble.parts

    def counting(mask):
        looked_at.append(mask.size)
        return parts(mask)

    monkeypatch.setattr(ensemble, "parts", counting)
    scores = torch.zeros(8, 60, 60, 60)
    scores[0] = 1.0
    for label, at in ((1, 5), (2, 25), (3, 45)):
        scores[:, at : at + 10, at : at + 10, at : at + 10] = 0.0
        scores[label, at : at + 10, at : at + 10, at : at + 10] = 1.0
    ensemble.keep_main_components(scores)
    assert looked_at == [10**3] * 3

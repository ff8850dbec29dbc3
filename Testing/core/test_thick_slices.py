"""Stacks of thick slices: voxels that are not cubic, through grids, networks, training, bundle, pipeline and report."""

import dataclasses
import io

import numpy as np
import pytest
import SimpleITK as sitk

torch = pytest.importorskip("torch")

from mkd_core.errors import InputError
from mkd_core.inference import resampling
from mkd_core.inference.geometry import Grid, OrientedVolume, box_grid, enclosing_grid
from mkd_core.inference.pipeline import segment
from mkd_core.io.bundle import load_bundle
from mkd_core.measure import plausibility
from mkd_core.method.networks import Discriminator, Generator, Segmentor
from mkd_core.method.strides import level_strides, total
from mkd_core.protocol import SegmentationOptions
from mkd_core.training.config import NetworksConfig, Stage, TrainingConfig, config_from

THICK = (8.0, 2.0, 2.0)


def test_an_axis_is_halved_once_the_others_are_nearly_as_coarse():
    assert level_strides((8.0, 1.5, 1.5), 3) == [(1, 2, 2), (1, 2, 2), (2, 2, 2)]
    assert level_strides((1, 1, 1), 2) == [(2, 2, 2), (2, 2, 2)]
    assert level_strides((1.5, 2.9, 1.5), 1) == [(2, 2, 2)] and level_strides((1.5, 3.0, 1.5), 1) == [(2, 1, 2)]
    assert total(level_strides((8.0, 1.5, 1.5), 3)) == (2, 8, 8)


@pytest.mark.parametrize(
    "network",
    [
        Segmentor(out_channels=3, channels=(4, 4, 8), voxel=THICK),
        Generator(2, 1, 2, THICK),
        Discriminator(2, 2, 1, THICK),
    ],
    ids=["segmentor", "generator", "discriminator"],
)
def test_networks_leave_a_short_axis_as_it_is(network):
    image = torch.rand(1, 1, 3, 16, 16)
    seen = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.register_forward_hook(lambda _, __, result: seen.append(tuple(result.shape[2:])))
    result = network(image)
    assert {shape[0] for shape in seen} == {3} and min(shape[1] for shape in seen) <= 4
    if not isinstance(network, Discriminator):
        assert result.shape[2:] == image.shape[2:]


def test_grids_count_and_sample_every_axis_by_its_own_voxel():
    ramp = np.add.outer(np.add.outer(np.arange(10.0) * 10, np.arange(20.0)), np.arange(30.0) * 100)
    image = sitk.GetImageFromArray(ramp)
    image.SetSpacing((1.0, 1.0, 4.0))
    field = OrientedVolume(image)
    grid = enclosing_grid(field, THICK, 1)
    assert grid.size == (5, 10, 15) and grid.voxel_ml == pytest.approx(0.032)
    assert (grid.high - grid.low).tolist() == [40.0, 20.0, 30.0]
    sampled = resampling.sample(field, grid).numpy()
    for axis, rise in enumerate((20.0, 2.0, 200.0)):
        inner = tuple(slice(1, -1) for _ in range(3))
        assert np.allclose(np.diff(sampled, axis=axis)[inner], rise, rtol=1e-4)
    box, cut = box_grid(field, np.array([0.0, 0, 0]), np.array([30.0, 15, 15]), THICK, 4, (40.0, 40.0, 40.0))
    assert box.size == (4, 8, 8) and not cut
    box, cut = box_grid(field, np.array([0.0, 0, 0]), np.array([40.0, 15, 15]), THICK, (1, 8, 4), (40.0, 40.0, 40.0))
    assert box.size == (5, 8, 8) and box.low[0] == field.bounds()[0][0] and not cut
    back = field.grid_to_image(sampled, grid)
    assert back.GetSpacing() == (2.0, 2.0, 8.0)
    assert back.GetOrigin() == pytest.approx(field.to_world(np.array(grid.start)))


def test_the_shape_of_a_heart_is_measured_as_on_cubic_voxels():
    labels = np.zeros((4, 16, 16), np.uint8)
    labels[1:3, 4:12, 2:14], labels[1:3, 6:10, 6:10] = 5, 1
    grid = Grid(labels.shape, (0.0, 0.0, 0.0), THICK)
    cubic, _, spacing = plausibility._on_cubic_voxels(labels, labels.astype(np.float32), grid)
    assert spacing == 2.0 and np.array_equal(cubic, labels.repeat(4, axis=0))
    same = Grid(cubic.shape, (-3.0, 0.0, 0.0), 2.0)
    kept, _, _ = plausibility._on_cubic_voxels(cubic, cubic, same)
    assert kept is cubic and same.low.tolist() == grid.low.tolist()


def test_settings_take_one_number_or_one_for_each_axis():
    stage = {"spacing_mm": [1.5, 1.5, 8], "patch": [64, 64, 8]}
    config = config_from({"stages": [stage]})
    assert config.stages[0].spacing == (8.0, 1.5, 1.5) and config.stages[0].patch_size == (8, 64, 64)
    assert config.networks.voxel == (1.5, 1.5, 8.0) and config.networks.strides == (4, 16, 16)
    assert config.networks.architecture("segmentor_real")["voxel"] == [8.0, 1.5, 1.5]
    assert "voxel" not in TrainingConfig().networks.architecture("segmentor_real")
    for values, words in (
        ([{**stage, "patch": [64, 64, 6]}], "multiple of 4 along z"),
        ([{**stage, "patch": [64, 64]}], "3 values"),
        ([{**stage, "spacing_mm": [1.5, 1.5, 80]}], "“stages[0].spacing_mm[2]”"),
        ([{**stage, "spacing_mm": "thick"}], "“stages[0].spacing_mm”"),
    ):
        with pytest.raises(InputError) as refused:
            config_from({"stages": values})
        assert words in str(refused.value)
    with pytest.raises(InputError, match="rendered hearts"):
        config_from({"stages": [stage], "data": {"hearts": "folder"}})


def test_thick_patches_turn_within_slices_only():
    pytest.importorskip("monai")
    from mkd_core.training.augmentation import Augmentation
    from mkd_core.training.config import AugmentationConfig

    still = dict.fromkeys(("scale", "noise", "blur", "contrast", "brightness"), 0.0)
    change = Augmentation(AugmentationConfig(rotation_deg=40.0, elastic_probability=1.0, **still), (4, 16, 16), THICK)
    along = torch.linspace(-0.8, 0.8, 6).view(1, 1, 6, 1, 1).expand(1, 1, 6, 22, 22).contiguous()
    image, labels = change(along, torch.zeros(1, 6, 22, 22, dtype=torch.uint8), [3])
    assert image.shape == (1, 1, 4, 16, 16) and labels.shape == (1, 4, 16, 16)
    assert torch.allclose(image, along[:, :, 1:5, 3:19, 3:19], atol=1e-5)
    across = torch.linspace(-0.8, 0.8, 22).view(1, 1, 1, 1, 22).expand(1, 1, 6, 22, 22).contiguous()
    turned, _ = change(across, torch.zeros(1, 6, 22, 22, dtype=torch.uint8), [3])
    assert not torch.allclose(turned, across[:, :, 1:5, 3:19, 3:19], atol=1e-2)


def test_patches_that_are_thin_at_the_coarsest_level_are_not_learnt_from_in_bfloat16_on_a_cpu(monkeypatch, tmp_path):
    pytest.importorskip("lightning_fabric")
    from mkd_core.inference import execution
    from mkd_core.training.config import TrainingConfig
    from mkd_core.training.trainer import _method

    monkeypatch.setattr(execution, "_cpu_computes_bfloat16", lambda: True)

    def precision(patch, wanted="auto"):
        config = TrainingConfig(out=str(tmp_path), networks=NetworksConfig((4, 8, 8), 2, 1, 2))
        run = dataclasses.replace(config.run, precision=wanted)
        config = dataclasses.replace(config, stages=(Stage(steps=1, patch=patch),), run=run)
        return _method(config, torch.device("cpu")).precision

    assert precision(16) == precision((16, 16, 12)) == torch.bfloat16
    assert precision((16, 16, 8)) == precision((8, 16, 16)) == torch.float32
    assert precision((16, 16, 8), "bfloat16") == torch.bfloat16


def test_a_stack_of_8_mm_slices_trains_and_segments(tmp_path):
    for package in ("monai", "lightning_fabric", "tensorboard", "tqdm"):
        pytest.importorskip(package)
    from mkd_core.training import trainer
    from Testing.core import test_training_run as runs

    for modality in ("CT", "MR"):
        for volume, kind in zip(runs._volume(1, modality), ("image", "label")):
            voxels = sitk.GetArrayFromImage(volume)[::2]
            stack = sitk.GetImageFromArray(np.ascontiguousarray(voxels))
            stack.SetSpacing((4.0, 4.0, 8.0))
            sitk.WriteImage(stack, str(tmp_path / f"{modality.lower()}_train_1001_{kind}.nii.gz"))
    config = runs._config(
        tmp_path,
        tmp_path / "run",
        networks=dataclasses.replace(NetworksConfig((4, 8, 8), 2, 1, 2), segmentor_norm="instance"),
        stages=(Stage(steps=60, spacing_mm=(4.0, 4.0, 8.0), patch=(16, 16, 8), batch=2),),
        method=runs.MethodConfig(segmentor_lr=2e-2),
    )
    shown = io.StringIO()
    trainer.Trainer(config, stream=shown).run()
    assert "4 x 4 x 8 mm, patches of 16 x 16 x 8 voxels" in shown.getvalue()
    bundle = load_bundle(tmp_path / "run" / "last.safetensors")
    assert bundle.strides == (2, 4, 4) and bundle.stride == 4  # so that six slices are not made eight
    assert bundle.spacing == (8.0, 4.0, 4.0) and bundle.metadata["segmentor"]["spacing_mm"] == [4.0, 4.0, 8.0]
    image = sitk.ReadImage(str(tmp_path / "ct_train_1001_image.nii.gz"))
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "ct_train_1001_label.nii.gz"))) > 0
    (x, y, z), (dx, dy, dz) = image.GetSize(), image.GetSpacing()
    box = (-dx / 2, (x - 0.5) * dx, -dy / 2, (y - 0.5) * dy, -dz / 2, (z - 0.5) * dz)
    cut = (*box[:4], box[4], (box[4] + box[5]) / 2)
    half = segment(image, bundle, modality="CT", options=SegmentationOptions(box_mm=cut, threads=1))
    assert {"box_cuts", "weights_untried"} <= {warning["code"] for warning in half.report["warnings"]}
    found = segment(image, bundle, modality="CT", options=SegmentationOptions(box_mm=box, threads=1)).labels
    assert found.GetSize() == image.GetSize() and found.GetSpacing() == image.GetSpacing()
    heart = sitk.GetArrayFromImage(found) > 0
    assert 2 * (heart & truth).sum() / (heart.sum() + truth.sum()) > 0.5

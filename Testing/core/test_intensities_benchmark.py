"""The comparison of real and rendered intensities, on images whose values are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.benchmarks import intensities
from Testing.benchmarks.intensities import Look, compare, look, real_looks, table


def test_a_structure_is_measured_off_its_border_and_small_ones_are_not():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2:10, 2:10, 2:10] = 1
    labels[0, 0, :3] = 5
    image = np.where(labels == 1, 0.5, -1.0)
    image[2] = image[9] = -1.0  # a partial volume at the border, which does not count
    found = look(image, labels, {1: "LV", 5: "Myo"})
    assert found.of == {"LV": (0.5, 0.0)}
    assert found.figure("LV", "median") == 0.5
    assert found.figure("LV", "above muscle") is None


def test_the_share_of_real_scans_inside_the_rendered_range_is_counted():
    rendered = [Look({"LV": (value, 0.1), "Myo": (-0.5, 0.1)}) for value in np.linspace(0.0, 1.0, 101)]
    real = [Look({"LV": (0.5, 0.1), "Myo": (-0.5, 0.1)}), Look({"LV": (0.99, 0.4)})]
    rows = {(row["structure"], row["figure"]): row for row in compare(real, rendered, ["LV", "Myo", "RV"])}
    assert set(rows) == {(key, name) for key in ("LV", "Myo") for name in ("median", "spread", "above muscle")} - {
        ("Myo", "above muscle")
    }
    assert rows["LV", "median"]["rendered"] == [0.05, 0.5, 0.95]
    assert rows["LV", "median"]["inside"] == 0.5
    assert rows["LV", "spread"]["inside"] == 0.5
    assert rows["LV", "above muscle"]["scans"] == 1 and rows["LV", "above muscle"]["real"][1] == 1.0


def test_real_scans_are_measured_the_anatomical_way_round(tmp_path):
    kind, (modality, place, *_, keys) = next(
        (kind, entry) for kind, entry in intensities._KINDS.items() if "short axis" in kind
    )
    assert modality == "MR"
    (tmp_path / place).mkdir(parents=True)
    labels = np.zeros((8, 30, 30), np.uint8)
    labels[1:7, 4:16, 5:25] = next(label for label, key in keys.items() if key == "LV")
    values = np.where(labels > 0, 400, 100).astype(np.int16)
    for name, array in (("a_image", values), ("a_label", labels)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((2.0, 2.0, 4.0))
        image.SetDirection((-1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0))
        sitk.WriteImage(image, str(tmp_path / place / f"{name}.nii.gz"))
    (found,) = real_looks(kind, tmp_path, 5)
    assert found.figure("LV", "median") == pytest.approx(1.0)
    assert found.figure("LV", "spread") == pytest.approx(0.0)


def test_the_documented_table_is_the_measured_one():
    root = Path(__file__).resolve().parents[2]
    figures = json.loads((root / "Testing/benchmarks/results/intensities.json").read_text(encoding="utf-8"))
    assert "\n".join(table(figures)) in (root / "docs/benchmarks.md").read_text(encoding="utf-8")

"""Draw the thumbnails of the samples, as Sample Data shows them: python -m Testing.demo.thumbnails"""

import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[2]

HEIGHT = 160  # pixels


def main() -> int:
    """Write one PNG per sample into the module's folder of icons."""
    from Testing.harness import bootstrap

    bootstrap.start()
    from MKDSegmentationLib.scene.sampleData import SAMPLES

    from mkd_core.io.preview import write_png
    from mkd_core.synthesis import synthesize
    from mkd_core.synthesis.heartbeat import synthesize_beat

    for sample in SAMPLES:
        if sample.frames:
            frames = list(
                synthesize_beat(None, sample.modality, sample.seed, 2.0, 5)
            )  # end-diastole is frame 0, end-systole frame 2
            tiles = [axialTile(*frames[number], sample.modality, painted=True) for number in (0, 2)]
        else:
            tiles = [
                axialTile(*synthesize(None, sample.modality, sample.seed, spacing=1.2), sample.modality, painted=False)
            ]
        write_png(np.concatenate(tiles, axis=1), ROOT / "MKDSegmentation" / "Resources" / "Icons" / sample.thumbnail)
    return 0


def axialTile(image, truth, modality: str, painted: bool) -> np.ndarray:
    """Return the middle of the axial slice through the heart, ``(HEIGHT, HEIGHT, 3)`` uint8."""
    from mkd_core.io.preview import picture

    rows = picture(image, truth, modality)
    side = (rows.shape[0] - 6) // 2  # two rows of square tiles with a gap of 6 pixels
    tile = rows[-side:, :side] if painted else rows[:side, :side]
    cut = side // 6
    small = sitk.GetImageFromArray(tile[cut:-cut, cut:-cut], isVector=True)
    grid = sitk.Image([HEIGHT, HEIGHT], sitk.sitkUInt8)
    grid.SetSpacing([size / HEIGHT for size in small.GetSize()])
    return sitk.GetArrayFromImage(
        sitk.Resample(
            sitk.SmoothingRecursiveGaussian(small, 0.8),
            grid,
            sitk.Transform(),
            sitk.sitkLinear,
            0.0,
            sitk.sitkVectorUInt8,
        )
    )


if __name__ == "__main__":
    sys.exit(main())

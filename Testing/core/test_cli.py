"""The command: files, exit codes, sentences."""

from __future__ import annotations

import hashlib
import json

import SimpleITK as sitk
import numpy as np
import pytest

from Testing.support.dicom_series import write_series
from Testing.support.known_heart import BALLS, KnownBundle, known_volume
from mkd_core import cli
from mkd_core.inference import pipeline
from mkd_core.structures import BY_LABEL


@pytest.fixture()
def known_weights(monkeypatch):
    """Weights that classify by intensity, whatever file is named."""
    monkeypatch.setattr(pipeline, "load_bundle", lambda path: KnownBundle())


@pytest.fixture()
def ct(tmp_path):
    """The known CT as a file in a folder of its own."""
    folder = tmp_path / "in"
    folder.mkdir()
    sitk.WriteImage(known_volume((44, 36, 40), (5, 5, 5))[0], str(folder / "ct.nii.gz"))
    return folder / "ct.nii.gz"


def refused(capsys, *arguments) -> str:
    """What the command says when it fails."""
    assert cli.main([str(argument) for argument in arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("mkd: ") and printed.err.count("\n") == 1
    return printed.err


def test_a_volume_is_segmented_with_report_picture_and_table(known_weights, ct, tmp_path, capsys):
    paths = {
        name: tmp_path / name for name in ("labels.nrrd", "report.json", "picture.png", "doubt.nii.gz", "aligned.mha")
    }
    code = cli.main(
        [
            "segment",
            str(ct),
            str(paths["labels.nrrd"]),
            "--report",
            str(paths["report.json"]),
            "--preview",
            str(paths["picture.png"]),
            "--disagreement",
            str(paths["doubt.nii.gz"]),
            "--aligned",
            str(paths["aligned.mha"]),
            "--threads",
            "1",
            "--device",
            "cpu",
        ]
    )
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    labels = sitk.ReadImage(str(paths["labels.nrrd"]))
    expected = pipeline.segment(
        sitk.ReadImage(str(ct)), KnownBundle(), options=pipeline.SegmentationOptions(device="cpu", threads=1)
    )
    assert np.array_equal(sitk.GetArrayViewFromImage(labels), sitk.GetArrayViewFromImage(expected.labels))
    report = json.loads(paths["report.json"].read_text())
    assert report["structures"] == expected.report["structures"]
    for label in BALLS:
        assert BY_LABEL[label].name in printed.out
    assert f"{report['structures']['LV']['volume_ml']:.1f} ml" in printed.out
    assert sitk.ReadImage(str(paths["picture.png"])).GetNumberOfComponentsPerPixel() == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*paths, "in"])


def test_a_run_can_be_repeated_from_its_report_alone(known_weights, ct, tmp_path, capsys):
    labels, report = tmp_path / "labels.nii.gz", tmp_path / "report.json"
    assert (
        cli.main(["segment", str(ct), str(labels), "--report", str(report), "--structures", "LV", "RA", "--quiet"]) == 0
    )
    run = json.loads(report.read_text())["run"]
    first = sitk.GetArrayFromImage(sitk.ReadImage(str(labels)))
    assert run["labels_sha256"] == hashlib.sha256(first).hexdigest()
    assert run["input_voxels_sha256"] == hashlib.sha256(sitk.GetArrayFromImage(sitk.ReadImage(str(ct)))).hexdigest()
    assert run["versions"]["torch"] and "auto" not in run["command"]
    labels.unlink()
    assert cli.main([*run["command"][1:], "--report", str(report), "--quiet"]) == 0
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(labels))), first)
    assert json.loads(report.read_text())["run"] == run


def test_no_output_may_be_the_volume_or_another_output(known_weights, ct, tmp_path, capsys):
    before = ct.read_bytes()
    assert "is the volume itself" in refused(capsys, "segment", ct, ct)
    assert "is named for two outputs" in refused(
        capsys, "segment", ct, tmp_path / "o.nrrd", "--disagreement", tmp_path / "o.nrrd"
    )
    assert ct.read_bytes() == before


def test_an_earlier_result_stays_when_a_run_fails(known_weights, ct, tmp_path, capsys, monkeypatch):
    def full(pixels, path):
        raise OSError(28, "No space left on device")

    for name in ("o.nrrd", "r.json", "p.png"):
        (tmp_path / name).write_text("earlier")
    monkeypatch.setattr("mkd_core.io.preview.store_png", full)
    refused(
        capsys,
        "segment",
        ct,
        tmp_path / "o.nrrd",
        "--report",
        tmp_path / "r.json",
        "--preview",
        tmp_path / "p.png",
        "--overwrite",
    )
    assert [(tmp_path / name).read_text() for name in ("o.nrrd", "r.json", "p.png")] == ["earlier"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "o.nrrd", "p.png", "r.json"]


def test_only_the_structures_asked_for_are_written_and_quiet_is_quiet(known_weights, ct, tmp_path, capsys):
    assert cli.main(["segment", str(ct), str(tmp_path / "o.nii.gz"), "--structures", "LV", "AA", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "o.nii.gz"))))) == {0, 1, 6}


def test_a_folder_with_one_dicom_series_is_read(known_weights, tmp_path, capsys):
    image = known_volume((44, 36, 40), (5, 5, 5))[0]
    folder = tmp_path / "dicom"
    folder.mkdir()

    assert "holds no DICOM series" in refused(capsys, "segment", folder, tmp_path / "o.nrrd")
    write_series(image, folder, 1)
    assert cli.main(["segment", str(folder), str(tmp_path / "o.nrrd"), "--quiet"]) == 0
    labels = sitk.ReadImage(str(tmp_path / "o.nrrd"))
    assert labels.GetSize() == image.GetSize()
    assert np.allclose(labels.GetOrigin(), image.GetOrigin(), atol=1e-3)
    capsys.readouterr()
    write_series(image, folder, 2)
    assert "holds 2 DICOM series" in refused(capsys, "segment", folder, tmp_path / "p.nrrd")


def test_failures_have_a_sentence_exit_code_one_and_leave_no_file(known_weights, ct, tmp_path, capsys):
    out = tmp_path / "o.nii.gz"
    (tmp_path / "text.nrrd").write_text("hello")
    assert "There is no file" in refused(capsys, "segment", tmp_path / "none.nrrd", out)
    assert "cannot be read as a volume" in refused(capsys, "segment", tmp_path / "text.nrrd", out)
    assert "not a name for a volume" in refused(capsys, "segment", ct, tmp_path / "o.jpg")
    assert "There is no folder" in refused(capsys, "segment", ct, tmp_path / "none" / "o.nrrd")
    assert "There is no folder" in refused(capsys, "segment", ct, out, "--report", tmp_path / "none" / "r.json")
    assert "not a name for a picture" in refused(capsys, "segment", ct, out, "--preview", tmp_path / "p.tif")
    assert "no structure “spleen”" in refused(capsys, "segment", ct, out, "--structures", "spleen")
    assert "not an alignment for CT" in refused(capsys, "segment", ct, out, "--alignment", "translate")
    assert "is not a computing device" in refused(capsys, "segment", ct, out, "--device", "abacus")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "text.nrrd"]


def test_no_heart_gives_exit_code_one_and_no_file(known_weights, tmp_path, capsys):
    noise = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 100, (30, 30, 30)).astype(np.int16))
    sitk.WriteImage(noise, str(tmp_path / "noise.nrrd"))
    message = refused(
        capsys,
        "segment",
        tmp_path / "noise.nrrd",
        tmp_path / "o.nrrd",
        "--report",
        tmp_path / "r.json",
        "--preview",
        tmp_path / "p.png",
    )
    assert "No heart was found in this volume." in message
    assert [path.name for path in tmp_path.iterdir()] == ["noise.nrrd"]


def test_if_one_file_cannot_be_written_none_is_left(known_weights, ct, tmp_path, capsys, monkeypatch):
    def full(pixels, path):
        path.write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mkd_core.io.preview.store_png", full)
    message = refused(
        capsys, "segment", ct, tmp_path / "o.nrrd", "--report", tmp_path / "r.json", "--preview", tmp_path / "p.png"
    )
    assert "p.png” cannot be written" in message
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_weights_that_cannot_be_used_are_refused(ct, tmp_path, capsys):
    assert "no such file" in refused(
        capsys, "segment", ct, tmp_path / "o.nrrd", "--weights", tmp_path / "none.safetensors"
    )
    assert "no such file" in refused(capsys, "info", tmp_path / "none.safetensors")


def test_an_interrupted_run_ends_with_code_130(ct, tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "segment", interrupt)
    assert cli.main(["segment", str(ct), str(tmp_path / "o.nrrd")]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["segment"],
        ["segment", "a"],
        ["segment", "a", "b", "--modality", "PET"],
        ["synthesize", "a", "b", "c", "d"],
    ],
)
def test_wrong_usage_ends_with_code_two(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: mkd" in capsys.readouterr().err


def test_info_describes_a_bundle_for_people_and_for_programs(tiny_bundle_path, capsys):
    assert cli.main(["info", str(tiny_bundle_path)]) == 0
    text = capsys.readouterr().out
    assert "tiny 0.0.1" in text and "2 mm" in text and "CT: cycle, MR: translate" in text
    assert cli.main(["info", str(tiny_bundle_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tiny"


@pytest.fixture()
def synthesis_calls(monkeypatch):
    """Replaces the renderer; gives what it was asked for."""
    import mkd_core.synthesis

    calls = []

    def synthesize(labelmap, modality, seed, spacing):
        calls.append((None if labelmap is None else labelmap.GetSize(), modality, seed, spacing))
        image, truth = known_volume((12, 12, 12), (5, 5, 5))
        return image, truth

    monkeypatch.setattr(mkd_core.synthesis, "synthesize", synthesize, raising=False)
    return calls


def test_synthesize_writes_image_and_truth_again_and_again(synthesis_calls, tmp_path):
    image, truth = tmp_path / "i.nii.gz", tmp_path / "t.nii.gz"
    for _ in range(2):  # the image of the first run is not taken for a label map in the second
        assert (
            cli.main(["synthesize", str(image), str(truth), "--modality", "MR", "--seed", "5", "--spacing", "1.5"]) == 0
        )
    assert synthesis_calls == [(None, "MR", 5, 1.5)] * 2
    assert sitk.ReadImage(str(image)).GetPixelID() == sitk.sitkInt16
    assert sitk.ReadImage(str(truth)).GetPixelID() == sitk.sitkUInt8


def test_synthesize_takes_a_label_map_first(synthesis_calls, tmp_path, capsys):
    labelmap = tmp_path / "l.nii.gz"
    sitk.WriteImage(sitk.Image([9, 10, 11], sitk.sitkUInt8), str(labelmap))
    assert cli.main(["synthesize", str(labelmap), str(tmp_path / "i.nrrd")]) == 0
    assert cli.main(["synthesize", str(labelmap), str(tmp_path / "j.nrrd"), str(tmp_path / "t.nrrd")]) == 0
    assert synthesis_calls == [((9, 10, 11), "CT", 0, 1.0)] * 2
    assert "is not a label map" in refused(
        capsys, "synthesize", tmp_path / "i.nrrd", tmp_path / "k.nrrd", tmp_path / "u.nrrd"
    )
    assert "There is no file" in refused(
        capsys, "synthesize", tmp_path / "none.nrrd", tmp_path / "k.nrrd", tmp_path / "u.nrrd"
    )
    assert "not a name for a volume" in refused(capsys, "synthesize", tmp_path / "i.png")


def test_synthesize_writes_the_frames_of_a_beat_as_numbered_files(monkeypatch, tmp_path):
    from mkd_core.synthesis import heartbeat

    def synthesize_beat(labelmap, modality, seed, spacing, frames):
        assert (labelmap, modality, seed, spacing) == (None, "CT", 7, 2.0)
        for frame in range(frames):
            yield (
                sitk.GetImageFromArray(np.full((8, 8, 8), frame, np.int16)),
                sitk.GetImageFromArray(np.full((8, 8, 8), frame, np.uint8)),
            )

    monkeypatch.setattr(heartbeat, "synthesize_beat", synthesize_beat)
    arguments = [
        "synthesize",
        str(tmp_path / "beat.nii.gz"),
        str(tmp_path / "truth.nrrd"),
        "--frames",
        "3",
        "--seed",
        "7",
        "--spacing",
        "2",
    ]
    assert cli.main(arguments) == 0
    names = [f"beat_{frame:02d}.nii.gz" for frame in range(3)] + [f"truth_{frame:02d}.nrrd" for frame in range(3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "beat_02.nii.gz"))).max() == 2


def test_a_beat_without_frames_is_wrong_usage(tmp_path):
    with pytest.raises(SystemExit) as left:
        cli.main(["synthesize", str(tmp_path / "beat.nrrd"), "--frames", "0"])
    assert left.value.code == 2

"""The command: files, exit codes, sentences."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from mkd_core import cli
from mkd_core.inference import pipeline
from mkd_core.structures import BY_LABEL
from Testing.support.dicom_series import write_series
from Testing.support.known_heart import BALLS, KnownBundle, known_volume


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
    report = json.loads(paths["report.json"].read_text(encoding="utf-8"))
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
    run = json.loads(report.read_text(encoding="utf-8"))["run"]
    first = sitk.GetArrayFromImage(sitk.ReadImage(str(labels)))
    assert run["labels_sha256"] == hashlib.sha256(first).hexdigest()
    assert run["input_voxels_sha256"] == hashlib.sha256(sitk.GetArrayFromImage(sitk.ReadImage(str(ct)))).hexdigest()
    assert run["versions"]["torch"] and "auto" not in run["command"]
    labels.unlink()
    assert cli.main([*run["command"][1:], "--report", str(report), "--quiet"]) == 0
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(labels))), first)
    assert json.loads(report.read_text(encoding="utf-8"))["run"] == run


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
    assert [(tmp_path / name).read_text(encoding="utf-8") for name in ("o.nrrd", "r.json", "p.png")] == ["earlier"] * 3
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
    assert cli.main(["segment", str(folder), str(tmp_path / "p.nrrd")]) == 0
    assert "was chosen of 2" in capsys.readouterr().out


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


def test_a_box_is_segmented_and_is_part_of_the_command_that_repeats_the_run(known_weights, ct, tmp_path):
    box = ["-60", "70", "-60", "60", "-60", "65"]
    paths = [str(ct), str(tmp_path / "heart.nii.gz"), "--report", str(tmp_path / "report.json")]
    assert cli.main(["segment", *paths, "--quiet", "--box", *box]) == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["evidence"]["verdict"] == "drawn" and report["options"]["box_mm"] == [float(bound) for bound in box]
    command = report["run"]["command"]
    assert command[command.index("--box") + 1 :][:6] == [str(float(bound)) for bound in box]
    assert report["structures"]["LV"]["volume_ml"] > 25


def test_a_box_outside_the_volume_is_refused(known_weights, ct, tmp_path, capsys):
    message = refused(capsys, "segment", ct, tmp_path / "heart.nii.gz", "--box", *[900, 990] * 3)
    assert "outside the volume" in message and not (tmp_path / "heart.nii.gz").exists()


def test_no_output_is_the_file_of_voxels_of_the_input_or_a_slice_or_the_weights(known_weights, ct, tmp_path, capsys):
    image, folder = sitk.ReadImage(str(ct)), tmp_path / "dicom"
    sitk.WriteImage(image, str(tmp_path / "a.nhdr"))
    write_series(image, folder, 1)
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"weights")
    lost = "a file that is read for it, which would be lost"
    before = {path: path.read_bytes() for path in (tmp_path / "a.raw", folder / "1_003.dcm", weights)}
    for source, option, target in (
        (tmp_path / "a.nhdr", "--report", tmp_path / "a.raw"),
        (folder, "--report", folder / "1_003.dcm"),
        (ct, "--report", weights),
    ):
        arguments = ("segment", source, tmp_path / "o.nrrd", "--weights", weights, option, target)
        for more in ((), ("--overwrite",)):
            assert lost in refused(capsys, *arguments, *more)
    assert lost in refused(capsys, "segment", ct, ct, "--overwrite")
    assert {path: path.read_bytes() for path in before} == before and not (tmp_path / "o.nrrd").exists()


def test_an_existing_file_is_replaced_only_if_an_earlier_run_made_it_or_the_user_says_so(
    known_weights, ct, tmp_path, capsys
):
    out, report, picture = tmp_path / "o.nrrd", tmp_path / "r.json", tmp_path / "p.png"
    arguments = ["segment", str(ct), str(out), "--report", str(report), "--preview", str(picture), "--quiet"]
    assert [cli.main(arguments) for _ in range(2)] == [0, 0]
    corrected = sitk.ReadImage(str(out))
    corrected.SetPixel(1, 1, 1, 3)
    sitk.WriteImage(corrected, str(out), True)
    by_hand = out.read_bytes()
    capsys.readouterr()
    assert "not an unchanged result of an earlier run" in refused(capsys, *arguments)
    assert out.read_bytes() == by_hand
    assert cli.main([*arguments, "--overwrite"]) == 0
    for path in (report, picture):
        path.write_bytes(path.read_bytes() + b" ")
        capsys.readouterr()
        assert f"“{path.name}” exists already" in refused(capsys, *arguments)
        path.unlink()


def test_synthesize_does_not_replace_its_own_label_map_or_a_foreign_file(synthesis_calls, tmp_path, capsys):
    labelmap = tmp_path / "l.nii.gz"
    sitk.WriteImage(sitk.Image([9, 10, 11], sitk.sitkUInt8), str(labelmap))
    before = labelmap.read_bytes()
    assert "would be lost" in refused(capsys, "synthesize", labelmap, labelmap, "--overwrite")
    assert "would be lost" in refused(capsys, "synthesize", labelmap, tmp_path / "i.nrrd", labelmap, "--overwrite")
    assert "exists already" in refused(capsys, "synthesize", labelmap)
    assert labelmap.read_bytes() == before and synthesis_calls == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--spacing", "0"],
        ["--spacing", "nan"],
        ["--spacing", "-1"],
        ["--spacing", "1e-9"],
        ["--seed", "-1"],
        ["--seed", "9" * 5000],
        ["--frames", "0"],
        ["--frames", "9" * 40],
    ],
)
def test_numbers_that_mean_nothing_are_wrong_usage(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["synthesize", str(tmp_path / "i.nrrd"), *arguments])
    assert caught.value.code == 2 and "usage: mkd" in capsys.readouterr().err


def test_names_that_no_file_can_have_are_refused_before_the_work(known_weights, ct, tmp_path, capsys):
    long = "n" * 300 + ".nrrd"
    assert "not a name" in refused(capsys, "segment", ct, tmp_path / long)
    assert "cannot be read" in refused(capsys, "segment", tmp_path / long, tmp_path / "o.nrrd")
    assert "not a name" in refused(capsys, "segment", ct, tmp_path / "o.nrrd", "--report", tmp_path / ("r" * 300))
    assert "cannot be used" in refused(capsys, "info", tmp_path / long)
    assert "not a name" in refused(capsys, "synthesize", tmp_path / long)


def test_huge_numbers_in_settings_are_refused_in_a_sentence(tmp_path, capsys):
    for number in ("9" * 5000, "0x" + "f" * 5000, "9" * 400):
        for line in (f"seed = {number}", f"out = {number}", f"[data]\nvalidation = {number}"):
            (tmp_path / "run.toml").write_text(line + "\n")
            refused(capsys, "train", tmp_path / "run.toml")


def run(*arguments, **how) -> subprocess.CompletedProcess:
    """The command in a process of its own, with known weights."""
    code = (
        "import sys\n"
        "from Testing.support.known_heart import KnownBundle\n"
        "from mkd_core import cli\n"
        "from mkd_core.inference import pipeline\n"
        "pipeline.load_bundle = lambda path: KnownBundle()\n"
        "sys.exit(cli.main())\n"
    )
    root = Path(__file__).resolve().parents[2]
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=root, check=False, timeout=600, **how)


posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


@posix
def test_a_volume_and_a_result_with_names_that_are_not_utf_8(ct, tmp_path):
    source = os.fsencode(tmp_path) + b"/\xe9t\xe9.nii.gz"
    Path(os.fsdecode(source)).write_bytes(ct.read_bytes())
    target, report = os.fsencode(tmp_path) + b"/c\xe9ur.nrrd", os.fsencode(tmp_path) + b"/\xe9.json"
    done = run("segment", source, target, "--report", report, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(Path(os.fsdecode(report)).read_text(encoding="utf-8"))["structures"]["LV"]["volume_ml"] > 0
    assert os.path.exists(target)
    done = run("segment", os.fsencode(tmp_path) + b"/\xe8.nrrd", target, capture_output=True)
    assert done.returncode == 1 and done.stderr.startswith(b"mkd: There is no file") and b"Traceback" not in done.stderr


@posix
def test_names_that_the_terminal_cannot_show_are_shown_with_escapes(tmp_path):
    for encoding in ("ascii", "cp1252"):
        environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        done = run(
            "segment", str(tmp_path / "心臓.nrrd"), str(tmp_path / "o.nrrd"), capture_output=True, env=environment
        )
        assert done.returncode == 1 and b"Traceback" not in done.stderr and b"\\u5fc3" in done.stderr


@posix
def test_a_full_or_closed_output_does_not_undo_a_segmentation_and_gives_no_traceback(ct, tmp_path):
    target = tmp_path / "o.nrrd"
    with open("/dev/full", "wb") as full:
        done = run("segment", str(ct), str(target), stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 0 and done.stderr == b"" and target.exists()
    read, write = os.pipe()
    os.close(read)
    done = run("segment", str(ct), str(target), stdout=write, stderr=subprocess.PIPE)
    assert done.returncode == 0 and done.stderr == b""
    done = run("info", stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 0 and done.stderr == b""
    with open("/dev/full", "wb") as full:
        done = run("info", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and done.stderr.startswith(b"mkd: ") and b"Traceback" not in done.stderr


def test_a_program_without_a_console_runs_the_command(known_weights, ct, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["segment", str(ct), str(tmp_path / "o.nrrd")]) == 0
    assert cli.main(["segment", str(tmp_path / "none.nrrd"), str(tmp_path / "o.nrrd")]) == 1
    assert sys.stdout is None and sys.stderr is None


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_to_end_leaves_no_draft_and_no_traceback(tmp_path, name):
    code = (
        "import signal, sys, time\n"
        # as at a terminal: whoever runs the tests in the background lets their children ignore these
        "signal.signal(signal.SIGINT, signal.default_int_handler); signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from mkd_core import cli\n"
        "import mkd_core.synthesis\n"
        "from Testing.support.known_heart import known_volume\n"
        "mkd_core.synthesis.synthesize = lambda *a, **k: known_volume((12, 12, 12), (5, 5, 5))\n"
        "import mkd_core.io.volumes as volumes\n"
        "store = volumes.store_volume\n"
        "def slow(image, draft, **how):\n"
        "    store(image, draft, **how)\n"
        "    print('written', flush=True)\n"
        "    time.sleep(600)\n"
        "volumes.store_volume = slow\n"
        f"sys.exit(cli.main(['synthesize', {str(tmp_path / 'i.nrrd')!r}]))\n"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"written\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(getattr(signal, name))
        _, said = process.communicate(timeout=600)
    assert process.returncode == (130 if name == "SIGINT" else 143)
    assert said.startswith(b"mkd: ") and said.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


@posix
def test_the_umask_is_kept_to(known_weights, ct, tmp_path):
    before = os.umask(0o077)
    try:
        assert (
            cli.main(["segment", str(ct), str(tmp_path / "o.nii.gz"), "--report", str(tmp_path / "r"), "--quiet"]) == 0
        )
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("o.nii.gz", "r")] == [0o600, 0o600]


def test_what_is_doubtful_about_a_file_is_in_the_report_and_printed(known_weights, ct, tmp_path, capsys):
    image = sitk.ReadImage(str(ct))
    x, y, z = image.GetSize()
    text = (
        f"NRRD0004\ntype: short\ndimension: 3\nsizes: {x} {y} {z}\nspacings: 5 5 5\nendian: little\nencoding: raw\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(text.encode() + sitk.GetArrayFromImage(image).tobytes())
    assert (
        cli.main(["segment", str(tmp_path / "a.nrrd"), str(tmp_path / "o.nrrd"), "--report", str(tmp_path / "r")]) == 0
    )
    assert "does not say how the patient lies" in capsys.readouterr().out
    assert "no_orientation" in [
        one["code"] for one in json.loads((tmp_path / "r").read_text(encoding="utf-8"))["warnings"]
    ]

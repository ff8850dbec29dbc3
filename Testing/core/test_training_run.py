"""A training run in small: from labelled volumes or rendered hearts to a bundle that segments; stopped, killed and
shared runs.
"""

import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for package in ("monai", "lightning_fabric", "tensorboard", "tqdm"):
    pytest.importorskip(package)
import SimpleITK as sitk

import mkd_core
from mkd_core import cli
from mkd_core.errors import InputError
from mkd_core.synthesis.anatomy import make_heart
from mkd_core.training import localiser
from mkd_core.training.checkpoint import NAMES, Checkpoints, decode
from mkd_core.training.config import (
    AugmentationConfig,
    BundleConfig,
    DataConfig,
    MethodConfig,
    NetworksConfig,
    Phase,
    RunConfig,
    Stage,
    TrainingConfig,
    config_from,
)
from mkd_core.training.datasets import LabelledData, memory_of_each, open_data
from mkd_core.training.mkd import MutualDistillation
from mkd_core.training.rendered_hearts import prepare_canvases, training_hearts
from mkd_core.training.trainer import Trainer, train

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = NetworksConfig(segmentor=(4, 8, 8), generator=2, generator_blocks=1, discriminator=2)


def _volume(number, modality):
    """Seven bars side by side in a box, their brightness by modality; labels as MM-WHS writes them."""
    labels = np.zeros((24, 20, 22), np.uint8)
    labels[4:20, 4:16, 4:18] = np.repeat(np.arange(1, 8), 2)
    levels = {"CT": [-100, 400, 300, 380, 280, 120, 450, 330], "MR": [90, 600, 560, 620, 580, 200, 640, 540]}[modality]
    image = np.array(levels)[labels] + np.random.default_rng(number).normal(0, 8, labels.shape)
    mmwhs = np.array([0, 500, 600, 420, 550, 205, 820, 850])[labels]
    volumes = sitk.GetImageFromArray(image.astype(np.int16)), sitk.GetImageFromArray(mmwhs.astype(np.int16))
    for volume in volumes:
        volume.SetSpacing((4.0, 4.0, 4.0))
    return volumes


@pytest.fixture(scope="module")
def mmwhs(tmp_path_factory):
    """Two CT and two MR cases named as MM-WHS names them."""
    folder = tmp_path_factory.mktemp("MMWHS")
    for modality in ("CT", "MR"):
        for number in (1001, 1002):
            for volume, kind in zip(_volume(number, modality), ("image", "label")):
                sitk.WriteImage(volume, str(folder / f"{modality.lower()}_train_{number}_{kind}.nii.gz"))
    return folder


def _config(mmwhs, out, *, steps=4, **changes):
    """A run of a few steps; ``changes`` are tables of settings."""
    tables = {
        "data": DataConfig(cases=str(mmwhs), validation=0.0),
        "networks": NETWORKS,
        "stages": (Stage(steps=steps, spacing_mm=4.0, patch=16, batch=2),),
        "run": RunConfig(threads=1, num_workers=0, precision="float32", checkpoint_minutes=0.0),
    }
    return TrainingConfig(out=str(out), **{**tables, **changes})


def _log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def _losses(out):
    return {entry["step"]: entry["real"] for entry in _log(out) if "real" in entry}


@pytest.mark.parametrize("target", ["CT", "MR"])
def test_either_modality_of_mmwhs_can_be_the_target_and_the_run_ends_in_a_bundle_for_it(mmwhs, tmp_path, target):
    config = _config(
        mmwhs,
        tmp_path / "run",
        target=target,
        stages=(Stage(steps=3, spacing_mm=8.0, patch=8, batch=2), Stage(steps=2, spacing_mm=4.0, patch=16, batch=2)),
    )
    bundle = mkd_core.load_bundle(train(config))
    assert bundle.target == target and bundle.spacing == 4.0 and bundle.name == "run"
    assert bundle.metadata["training"]["data"] == "2 labelled CT and 2 labelled MR volumes"
    assert bundle.metadata["training"]["steps"] == 5
    assert bundle.alignment(target) == "cycle" and bundle.alignment("MR" if target == "CT" else "CT") == "translate"
    assert [path.name for path in sorted((tmp_path / "run" / "panels").iterdir())] == [
        "step_0000003.png",
        "step_0000005.png",
    ]


def test_a_run_shows_its_losses_on_the_output_in_a_log_and_in_tensorboard(mmwhs, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = io.StringIO()
    Trainer(_config(mmwhs, tmp_path, steps=30), stream=shown).run()
    checking, *lines = shown.getvalue().splitlines()
    assert checking == "Checking the settings and the data"
    assert lines[0].startswith("Stage 1: 30 steps of 2 pairs at 4 mm") and "2 labelled CT" in lines[0]
    assert lines[1].startswith("step 25 of 30, 0 min left  adversarial ") and "syn to real" in lines[1]
    assert lines[-1] == f"Done: {tmp_path / 'last.safetensors'}"
    assert list(_losses(tmp_path)) == [25, 30]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"loss/real", "loss/syn", "loss/cycle", "loss/real to syn", "rate"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss/real")] == [25, 30]
    assert events.Tags()["images"] == ["panel"]


def test_validation_runs_the_deployed_pipeline_and_what_validates_best_is_kept(mmwhs, tmp_path):
    config = _config(
        mmwhs,
        tmp_path / "run",
        data=DataConfig(cases=str(mmwhs), validation=0.5),
        bundle=BundleConfig(ensemble="measured"),
        run=RunConfig(threads=1, num_workers=0, precision="float32", validate_every=2),
    )
    shown = io.StringIO()
    path = Trainer(config, stream=shown).run()
    bundle = mkd_core.load_bundle(path)
    assert path.name == "best.safetensors"
    by_alignment = bundle.metadata["quality"]["validation Dice by alignment"]
    assert set(by_alignment) == {"cycle", "none", "mean"}
    assert (
        by_alignment[bundle.alignment("CT")]
        == max(by_alignment.values())
        == bundle.metadata["quality"]["validation Dice"]["mean"]
    )
    assert bundle.alignment("CT") == "cycle", "of equal ones the method's own"
    by_share = {
        float(share): dice
        for share, dice in bundle.metadata["quality"]["validation Dice by S_real's ensemble weight, target"].items()
    }
    assert len(by_share) == 7
    assert bundle.metadata["ensemble"] == {"target": 0.5}, (
        "of equal ones the middle; and nothing is said of MR, which nothing validates"
    )
    assert [entry["step"] for entry in _log(tmp_path / "run") if "dice" in entry] == [2, 4]
    assert "Dice 0.0000" in shown.getvalue()  # bars are no heart, and the pipeline says so
    assert "1 labelled CT and 2 labelled MR" in bundle.metadata["training"]["data"]


@pytest.mark.parametrize("scheme", ["target-only", "joint", "fine-tune"])
def test_the_schemes_that_the_method_is_compared_with_make_bundles_too(mmwhs, tmp_path, scheme):
    bundle = mkd_core.load_bundle(train(_config(mmwhs, tmp_path, method=MethodConfig(scheme=scheme))))
    assert bundle.metadata["training"]["scheme"] == scheme and bundle.alignment("CT") == "none"
    image = torch.rand(1, 1, 16, 16, 16)
    assert torch.equal(bundle.network("segmentor_real")(image), bundle.network("segmentor_syn")(image))


def test_hearts_are_rendered_as_the_run_goes_and_test_hearts_are_never_read(tmp_path):
    hearts = tmp_path / "hearts"
    hearts.mkdir()
    for number in (1, 2, 3, 4, 201):
        sitk.WriteImage(make_heart(number, spacing=3.0), str(hearts / f"heart_{number:04d}.nii.gz"))
    config = _config(
        "", tmp_path / "run", steps=2, data=DataConfig(hearts=str(hearts), own_hearts=1, validation_cases=1)
    )
    bundle = mkd_core.load_bundle(train(config))
    assert "3 hearts of the folder hearts and 1 of mkd_core.synthesis.anatomy" in bundle.metadata["training"]["data"]
    prepared = {path.name.split("_b0")[0] for path in (tmp_path / "run" / "prepared").glob("*_b0.json")}
    assert prepared == {"heart_0001", "heart_0002", "heart_0003", "heart_0004", "own_10001"}
    assert [entry["step"] for entry in _log(tmp_path / "run") if "dice" in entry] == [2]


def _command(config_file, held_at=None):
    """The command that trains; a run that is held takes no step after so many, and waits to be killed."""
    program = ["mkd_core"] if held_at is None else ["Testing.support.held_training", str(held_at)]
    return [sys.executable, "-m", *program, "train", str(config_file)]


def _write_config(path, mmwhs, *, steps, **run):
    """The same run as a file of settings."""
    settings = {"threads": 1, "num_workers": 1, "precision": '"float32"', "checkpoint_minutes": 0.0, **run}
    lines = [
        'out = "run"',
        "[data]",
        f'cases = "{mmwhs}"',
        "validation = 0.0",
        "[networks]",
        "segmentor = [4, 8, 8]",
        "generator = 2",
        "generator_blocks = 1",
        "discriminator = 2",
        "[[stages]]",
        f"steps = {steps}",
        "spacing_mm = 4.0",
        "patch = 16",
        "batch = 2",
        "[run]",
    ]
    path.write_text("\n".join(lines + [f"{name} = {value}" for name, value in settings.items()]) + "\n")
    return path


def _wait_for(condition, process, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended"
        assert time.monotonic() < end
        time.sleep(0.1)


def _saved_step(out):
    try:
        saved = Checkpoints(out).load()
    except InputError:  # caught between two steps of its making
        return 0
    return saved["step"] if saved else 0


def _weights(out):
    """The bytes of the bundle, but for the day on which it was made: midnight may lie between two runs."""
    bundle, days = re.subn(rb"(created\W+)\d{4}-\d\d-\d\d", rb"\1", (out / "last.safetensors").read_bytes())
    assert days == 1
    return bundle


def _entries(out):
    return [{name: value for name, value in entry.items() if name != "time"} for entry in _log(out)]


def test_a_run_killed_for_good_continues_to_the_same_weights_and_curve(mmwhs, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        _write_config(folder / "run.toml", mmwhs, steps=40)
    subprocess.run(_command(whole / "run.toml"), cwd=ROOT, check=True, capture_output=True)
    command = _command(broken / "run.toml", held_at=30)
    killed = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    _wait_for(lambda: _saved_step(broken / "run") >= 8, killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert 8 <= _saved_step(broken / "run") < 40
    (broken / "run" / ".mkd-0123456789abcdef.mkd").write_bytes(b"half a checkpoint")
    subprocess.run(_command(broken / "run.toml"), cwd=ROOT, check=True, capture_output=True)
    assert _weights(broken / "run") == _weights(whole / "run")
    assert _entries(broken / "run") == _entries(whole / "run")
    assert not list((broken / "run").glob(".mkd-*"))


class Killed(BaseException):
    """What nothing handles."""


@pytest.fixture()
def killing(monkeypatch):
    """Lets the run die at the steps that it is given, and save its checkpoints at odd moments."""
    usual = MutualDistillation.step

    def at(steps, seed):
        saves = np.random.default_rng(seed)
        monkeypatch.setattr(Trainer, "_checkpoint_is_due", lambda self: bool(saves.random() < 0.4))

        def step(self, x_t, y_t, x_a, y_a, plan, *others):
            if steps and plan.step == steps[0]:
                steps.pop(0)
                raise Killed
            return usual(self, x_t, y_t, x_a, y_a, plan, *others)

        monkeypatch.setattr(MutualDistillation, "step", step)

    return at


#: A run in which everything that a checkpoint holds matters: full pools, both phases, two stages, losses that are
#: recorded long after they were added up.
MANY_SIDED = {
    "method": MethodConfig(pool=3),
    "stages": (Stage(steps=6, spacing_mm=8.0, patch=8, batch=2), Stage(steps=10, spacing_mm=4.0, patch=16, batch=2)),
    "phases": (Phase(steps=2, generators="off", distillation=False), Phase(distillation_ramp=5)),
    "run": RunConfig(threads=1, num_workers=0, precision="float32", checkpoint_minutes=1e9),
}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_many_times_is_the_uninterrupted_one_to_the_last_bit(mmwhs, tmp_path, killing, seed):
    whole = Trainer(_config(mmwhs, tmp_path / "whole", **MANY_SIDED), stream=io.StringIO())
    whole.run()
    deaths = sorted(int(step) for step in np.random.default_rng(seed).choice(np.arange(1, 16), 5, replace=False))
    killing(list(deaths), seed)
    starts = 0
    while True:
        starts += 1
        broken = Trainer(_config(mmwhs, tmp_path / "broken", **MANY_SIDED), stream=io.StringIO())
        try:
            broken.run()
            break
        except Killed:
            pass
    assert starts == len(deaths) + 1
    for name, value in whole.method.state_dict().items():
        assert torch.equal(broken.method.state_dict()[name], value), name
    for name, value in whole.average.state_dict().items():
        assert torch.equal(broken.average.state_dict()[name], value), name
    assert _entries(tmp_path / "broken") == _entries(tmp_path / "whole")
    first, second = whole.method.pools(), broken.method.pools()
    assert first["t"]["random"] == second["t"]["random"]
    assert all(torch.equal(a, b) for a, b in zip(first["a"]["images"], second["a"]["images"]))


def _go_on(mmwhs, out, **changes):
    shown = io.StringIO()
    run = RunConfig(threads=1, num_workers=0, precision="float32")
    trainer = Trainer(_config(mmwhs, out, **{"run": run, **changes}), stream=shown)
    trainer.run()
    return trainer, shown.getvalue()


def test_a_flipped_byte_in_the_newest_checkpoint_is_told_and_costs_only_the_steps_since_the_older_one(mmwhs, tmp_path):
    train(_config(mmwhs, tmp_path / "run", steps=4))
    untouched = _weights(tmp_path / "run")
    newest = max((tmp_path / "run" / name for name in NAMES), key=lambda path: decode(path.read_bytes())["generation"])
    data = bytearray(newest.read_bytes())
    data[-100] ^= 1
    newest.write_bytes(data)
    _, shown = _go_on(mmwhs, tmp_path / "run", steps=4)
    assert f"“{newest.name}” cannot be used: it is damaged" in shown and "at step 3" in shown
    assert _weights(tmp_path / "run") == untouched


def test_a_checkpoint_that_does_not_say_of_which_run_it_is_is_refused(mmwhs, tmp_path):
    train(_config(mmwhs, tmp_path / "run"))
    checkpoints = Checkpoints(tmp_path / "run")
    content = checkpoints.load()
    for missing in ("settings", "images"):
        checkpoints.save({name: value for name, value in content.items() if name != missing})
        with pytest.raises(InputError, match="does not say of which run it is"):
            train(_config(mmwhs, tmp_path / "run"))
    (tmp_path / "earlier").mkdir()
    torch.save({"step": 5}, tmp_path / "earlier" / "checkpoint.pt")
    with pytest.raises(InputError, match="a checkpoint of an earlier version"):
        train(_config(mmwhs, tmp_path / "earlier"))


def test_other_images_under_the_same_settings_are_refused_and_the_same_ones_elsewhere_are_not(mmwhs, tmp_path):
    first, moved = tmp_path / "first", tmp_path / "moved"
    shutil.copytree(mmwhs, first)
    train(_config(first, tmp_path / "run", steps=2))
    shutil.copytree(first, moved)
    trainer, _ = _go_on(moved, tmp_path / "run", steps=3)
    assert trainer.step == 3
    changed = first / "mr_train_1002_image.nii.gz"
    image = sitk.ReadImage(str(changed))
    image[5, 5, 5] += 1
    sitk.WriteImage(image, str(changed))
    with pytest.raises(InputError, match=r"other images \(train MR mr_train_1002 image\)"):
        train(_config(first, tmp_path / "run", steps=4))
    changed.unlink()
    (first / "mr_train_1002_label.nii.gz").unlink()
    with pytest.raises(InputError, match="other images"):
        train(_config(first, tmp_path / "run", steps=4))


def test_a_full_disk_ends_the_run_with_a_sentence_and_a_whole_checkpoint(mmwhs, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    whole, out = tmp_path / "whole" / "run", tmp_path / "full" / "run"
    train(_config(mmwhs, whole))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    usual = MutualDistillation.step

    def step(self, x_t, y_t, x_a, y_a, plan, *others):
        if plan.step == 2:  # from now on no file can grow as large as a checkpoint
            resource.setrlimit(resource.RLIMIT_FSIZE, ((out / NAMES[0]).stat().st_size // 2, limit[1]))
        return usual(self, x_t, y_t, x_a, y_a, plan, *others)

    monkeypatch.setattr(MutualDistillation, "step", step)
    trainer = Trainer(_config(mmwhs, out), stream=io.StringIO())
    try:
        with pytest.raises(InputError, match=r"stopped at step 3: .* could not be .*the same command goes on"):
            trainer.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        monkeypatch.undo()
    assert not list(out.glob(".mkd-*"))
    assert _saved_step(out) == 2
    train(_config(mmwhs, out))
    assert _weights(out) == _weights(whole)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_to_every_process_at_once_ends_with_a_sentence_and_a_whole_checkpoint(mmwhs, tmp_path, processes):
    config_file = _write_config(
        tmp_path / "run.toml", mmwhs, steps=100000, checkpoint_minutes=60.0, processes=processes
    )
    process = subprocess.Popen(
        _command(config_file), cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / "run" / "log.jsonl"
    _wait_for(lambda: log.exists() and log.read_text(encoding="utf-8"), process)
    for _ in range(2):  # a launcher may pass it on
        os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and errors.count("the same command goes on") == 1
    assert errors.count("mkd: interrupted") == 1
    assert _saved_step(tmp_path / "run") >= 25
    assert not list((tmp_path / "run").glob(".mkd-*"))


def test_ctrl_c_leaves_a_bundle_and_the_same_command_goes_on_but_not_beside_it(mmwhs, tmp_path):
    config_file = _write_config(tmp_path / "run.toml", mmwhs, steps=100000, checkpoint_minutes=60.0)
    process = subprocess.Popen(_command(config_file), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    _wait_for(
        lambda: (
            (tmp_path / "run" / "log.jsonl").exists() and (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8")
        ),
        process,
    )
    with pytest.raises(InputError, match="Another run is under way in the folder"):
        Trainer(_config(mmwhs, tmp_path / "run"), stream=io.StringIO()).run()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "the same command goes on" in errors and errors.strip().endswith("mkd: interrupted")
    steps = mkd_core.load_bundle(tmp_path / "run" / "last.safetensors").metadata["training"]["steps"]
    assert steps == _saved_step(tmp_path / "run") >= 25
    again = Trainer(
        dataclasses.replace(
            _config(mmwhs, tmp_path / "run", steps=steps + 1),
            run=RunConfig(threads=1, num_workers=0, precision="float32"),
        )
    )
    again.run()
    assert again.step == steps + 1


def test_a_run_that_is_stopped_while_it_prepares_ends_at_once(mmwhs, tmp_path, monkeypatch):
    trainer = Trainer(_config(mmwhs, tmp_path))
    prepare, usual = LabelledData.prepare, signal.getsignal(signal.SIGINT)

    def interrupted(self, stage, notice):
        os.kill(os.getpid(), signal.SIGINT)
        prepare(self, stage, notice)

    monkeypatch.setattr(LabelledData, "prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert not (tmp_path / "prepared").exists() and signal.getsignal(signal.SIGINT) == usual


def test_two_processes_share_the_batch_and_survive_a_kill(mmwhs, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for folder, processes in ((alone, 1), (shared, 2)):
        folder.mkdir()
        _write_config(folder / "run.toml", mmwhs, steps=30, processes=processes)
    subprocess.run(_command(alone / "run.toml"), cwd=ROOT, check=True, capture_output=True)
    command = _command(shared / "run.toml", held_at=20)
    killed = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    _wait_for(lambda: _saved_step(shared / "run") >= 3, killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    subprocess.run(_command(shared / "run.toml"), cwd=ROOT, check=True, capture_output=True)
    weights = [
        mkd_core.load_bundle(folder / "run" / "last.safetensors").network("segmentor_real").state_dict()
        for folder in (alone, shared)
    ]
    assert all(torch.allclose(value, weights[1][name], atol=2e-2) for name, value in weights[0].items())
    saved = Checkpoints(shared / "run").load()
    assert len(saved["processes"]) == 2 and all(len(one["pools"]["t"]["images"]) for one in saved["processes"])
    _, shown = _go_on(mmwhs, shared / "run", stages=(Stage(steps=31, spacing_mm=4.0, patch=16, batch=2),))
    assert "had 2 processes and now has 1" in shown


def test_under_torchrun_the_processes_are_torchruns(mmwhs, tmp_path):
    for name in ("alone", "shared"):
        (tmp_path / name).mkdir()
        _write_config(tmp_path / name / "run.toml", mmwhs, steps=5)
    subprocess.run(_command(tmp_path / "alone" / "run.toml"), cwd=ROOT, check=True, capture_output=True)
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "mkd_core",
        "train",
    ]
    done = subprocess.run(
        [*torchrun, str(tmp_path / "shared" / "run.toml")], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stderr.count("Checking the settings and the data") == 1
    losses = [_losses(tmp_path / name / "run")[5] for name in ("alone", "shared")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert len(Checkpoints(tmp_path / "shared" / "run").load()["processes"]) == 2


def test_a_folder_with_a_run_of_other_settings_is_refused(mmwhs, tmp_path):
    train(_config(mmwhs, tmp_path))
    with pytest.raises(InputError, match=r"holds a run with other settings \(method\)"):
        train(_config(mmwhs, tmp_path, method=MethodConfig(temperature=3.0)))


def test_a_localiser_can_be_trained_and_taken_into_a_bundle(mmwhs, tmp_path):
    sitk.WriteImage(make_heart(1, spacing=3.0), str(tmp_path / "heart_0001.nii.gz"))
    canvases = prepare_canvases(training_hearts(tmp_path, 200), tmp_path / "canvases")
    network = localiser.train(canvases, tmp_path / "localiser", minutes=0.02)
    run = RunConfig(
        threads=1, num_workers=0, precision="float32", localiser=str(tmp_path / "localiser" / "localiser.pt")
    )
    bundle = mkd_core.load_bundle(train(_config(mmwhs, tmp_path / "run", steps=1, run=run)))
    image = torch.rand(1, 1, 16, 16, 16)
    assert torch.allclose(bundle.network("localiser")(image), network(image), atol=0.05)
    assert bundle.localiser_spacing == localiser.SPACING


def test_a_localiser_of_other_intensity_ranges_is_refused(mmwhs, tmp_path):
    data = DataConfig(cases=str(mmwhs), validation=0.0, ct_window=(-500.0, 1000.0))
    with pytest.raises(InputError, match=r"localiser of “default\.safetensors” was trained on other ranges"):
        train(_config(mmwhs, tmp_path / "run", data=data))
    assert not (tmp_path / "run").exists()


def test_a_run_can_start_from_a_bundle_of_the_same_sizes_only(mmwhs, tmp_path):
    first = train(_config(mmwhs, tmp_path / "first"))
    run = RunConfig(threads=1, num_workers=0, precision="float32", start=str(first))
    started = Trainer(_config(mmwhs, tmp_path / "second", run=run))
    image = torch.rand(1, 1, 16, 16, 16)
    assert torch.equal(
        started.method.segmentor_real.eval()(image), mkd_core.load_bundle(first).network("segmentor_real")(image)
    )
    with pytest.raises(InputError, match="have other sizes"):
        Trainer(
            _config(mmwhs, tmp_path / "third", run=run, networks=dataclasses.replace(NETWORKS, segmentor=(4, 8, 16)))
        )


def test_cases_that_a_table_marks_as_test_are_never_read(mmwhs, tmp_path):
    rows = ["image,label,modality,split"]
    for modality, splits in (("ct", ("train", "test")), ("mr", ("train", "validation"))):
        for number, split in zip((1001, 1002), splits):
            rows.append(
                f"{mmwhs}/{modality}_train_{number}_image.nii.gz,{mmwhs}/{modality}_train_{number}_label.nii.gz,{modality.upper()},{split}"
            )
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    data = open_data(config_from({"data": {"cases": str(tmp_path / "cases.csv")}}), tmp_path)
    assert [case.name for case in data.training] == ["ct_train_1001", "mr_train_1001"] and data.validation == []


def test_missing_assistants_are_refused_before_anything_is_written_and_not_missed_by_the_target_alone(mmwhs, tmp_path):
    (tmp_path / "cases.csv").write_text(
        f"image,label,modality\n{mmwhs}/ct_train_1001_image.nii.gz,{mmwhs}/ct_train_1001_label.nii.gz,CT\n"
    )
    config = _config(tmp_path / "cases.csv", tmp_path / "run")
    with pytest.raises(InputError, match="There is no MR among the labelled volumes"):
        train(config)
    assert not (tmp_path / "run").exists()
    train(dataclasses.replace(config, method=MethodConfig(scheme="target-only")))


def test_bad_data_is_refused_in_one_sentence_with_the_files_name(mmwhs, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    for path in mmwhs.iterdir():
        (folder / path.name).symlink_to(path)
    label = sitk.ReadImage(str(mmwhs / "mr_train_1002_label.nii.gz"))
    (folder / "mr_train_1002_label.nii.gz").unlink()
    label[0, 0, 0] = 77
    sitk.WriteImage(label, str(folder / "mr_train_1002_label.nii.gz"))
    config_file = _write_config(tmp_path / "run.toml", folder, steps=2)
    assert cli.main(["train", str(config_file)]) == 1
    assert "mkd: “mr_train_1002_label.nii.gz” has the value 77, which means no structure." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_be_shared_is_refused(mmwhs, tmp_path):
    with pytest.raises(InputError, match="A batch of 2 cannot be shared evenly by 3 processes"):
        train(_config(mmwhs, tmp_path, run=RunConfig(processes=3)))


def test_settings_without_data_or_folder_are_refused():
    with pytest.raises(InputError, match="The settings name no data"):
        train(TrainingConfig(out="somewhere"))
    with pytest.raises(InputError, match="The run has no folder"):
        train(TrainingConfig())


def test_the_memory_for_volumes_is_shared_by_all_who_read_them():
    config = TrainingConfig(data=DataConfig(cache_gb=8.0), run=RunConfig(processes=2, num_workers=2))
    assert memory_of_each(config) == 1e9


def test_training_learns_labelled_volumes_by_heart(mmwhs, tmp_path):
    still = AugmentationConfig(rotation_deg=0, scale=0, elastic_mm=0, noise=0, blur=0, contrast=0, brightness=0)
    config = _config(
        mmwhs,
        tmp_path,
        augmentation=still,
        stages=(Stage(steps=120, spacing_mm=4.0, patch=24, batch=1),),
        networks=dataclasses.replace(NETWORKS, segmentor=(8, 16, 16)),
        method=MethodConfig(segmentor_lr=8e-3, class_weights=(1.0,) * 8),
        data=DataConfig(cases=str(mmwhs), validation=0.0, heart_fraction=1.0),
    )
    bundle = mkd_core.load_bundle(train(config))
    image, labels = _volume(1001, "CT")
    values = torch.from_numpy(sitk.GetArrayFromImage(image).astype(np.float32))[None, None, :, 2:18, 3:19]
    values = ((values + 300) / 500 - 1).clamp(-1, 1)
    truth = sitk.GetArrayFromImage(labels)[:, 2:18, 3:19]
    found = bundle.network("segmentor_real")(values).argmax(1)[0].numpy()
    for label, value in enumerate((500, 600, 420, 550, 205, 820, 850), 1):
        a, b = found == label, truth == value
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.95, label

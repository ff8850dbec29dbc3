"""A run in small: hearts to canvases to networks to a bundle that loads; stopped runs continue."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch")
sitk = pytest.importorskip("SimpleITK")

import mkd_core  # noqa: E402
from mkd_core.synthesis.anatomy import make_heart  # noqa: E402
from mkd_core.training import localiser, make_bundle, run  # noqa: E402
from mkd_core.training.data import PatchSource, open_canvas, prepare_canvases, training_hearts  # noqa: E402
from mkd_core.training.mkd import MKDConfig, MutualDistillation  # noqa: E402

SMALL = MKDConfig(
    segmentor={"type": "segmentor", "channels": [4, 8, 8]},
    generator={"type": "generator", "channels": 2, "blocks": 1},
    discriminator={"type": "discriminator", "channels": 2},
)
STAGE = run.Stage(minutes=0.03, spacing=8.0, size=16, batch=1)


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hearts")
    for number in (1, 2, 201):
        sitk.WriteImage(make_heart(number, spacing=3.0), str(folder / f"heart_{number:04d}.nii.gz"))
    return folder


@pytest.fixture(scope="module")
def canvases(hearts, tmp_path_factory):
    return prepare_canvases(training_hearts(hearts, last=200), tmp_path_factory.mktemp("canvases"))


def _train(canvases, out):
    torch.manual_seed(0)
    model = MutualDistillation(SMALL)
    run.train(model, [STAGE, STAGE], canvases, canvases[:1], out, workers=0)
    return model


def test_test_hearts_are_never_read_by_training(hearts):
    assert [path.name for path in training_hearts(hearts, last=200)] == ["heart_0001.nii.gz", "heart_0002.nii.gz"]


def test_canvases_are_painted_once_and_know_where_the_heart_is(canvases, hearts):
    before = canvases[0].stat().st_mtime_ns
    assert prepare_canvases(training_hearts(hearts, last=200), canvases[0].parent) == canvases
    assert canvases[0].stat().st_mtime_ns == before
    canvas = open_canvas(canvases[0])
    assert all(0 < low < high < size for low, high, size in zip(canvas.heart_low, canvas.heart_high, canvas.tissues.shape))


def test_the_stream_gives_unpaired_normalised_patches_and_repeats_for_a_seed(canvases):
    source = PatchSource(tuple(canvases), tuple(canvases), 16, 8.0, run.NORMALISATION, seed=4)
    x_t, y_t, x_a, y_a = next(iter(source))
    assert x_t.shape == x_a.shape == (1, 16, 16, 16) and y_t.shape == y_a.shape == (16, 16, 16)
    assert -1 <= x_t.min() < x_t.max() <= 1 and -1 <= x_a.min() < x_a.max() <= 1
    assert (next(iter(source))[0] == x_t).all()


def test_a_run_writes_its_log_pictures_and_networks_and_becomes_a_bundle(canvases, tmp_path, monkeypatch):
    out = tmp_path / "run"
    _train(canvases, out)
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [entry["end_of_stage"] for entry in entries if "end_of_stage" in entry] == [0, 1]
    assert (out / "panel_stage1.png").stat().st_size > 1000
    localiser.train(canvases, tmp_path / "localiser", minutes=0.03)
    monkeypatch.setattr(make_bundle, "MKDConfig", lambda: SMALL)
    make_bundle.make_bundle(out, tmp_path / "localiser", tmp_path / "bundle.safetensors", name="Small", version="1", quality={"dice": 0.5})
    bundle = mkd_core.load_bundle(tmp_path / "bundle.safetensors")
    assert bundle.name == "Small" and bundle.metadata["quality"] == {"dice": 0.5}
    made = bundle.network("segmentor_real")(torch.zeros(1, 1, 16, 16, 16))
    assert made.shape == (1, 8, 16, 16, 16) and torch.isfinite(made).all()
    model = MutualDistillation(SMALL)
    run.start_from(model, bundle)
    assert torch.equal(model.segmentor_syn.eval()(torch.ones(1, 1, 16, 16, 16)), bundle.network("segmentor_syn")(torch.ones(1, 1, 16, 16, 16)))


def test_a_stopped_run_continues_where_its_checkpoint_left_it(canvases, tmp_path):
    first = _train(canvases, tmp_path / "run")
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert saved["done"]["stage"] == 2 and saved["done"]["step"] > 0
    # As if it had been killed after the first stage.
    saved["done"].update(stage=1, minutes=0.0)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").mkdir()
    torch.save(saved, tmp_path / "run" / "checkpoint.pt")
    again = _train(canvases, tmp_path / "run")
    entries = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(entry["stage"] == 1 for entry in entries) and entries[-1]["step"] > saved["done"]["step"]
    assert not torch.equal(next(again.segmentor_real.parameters()), next(first.segmentor_real.parameters()))


def test_the_rate_falls_along_a_cosine():
    stage = run.Stage(10, 2.0, 64, 1, rate_from=1.0, rate_to=0.2)
    assert [round(run.stage_rate(stage, f), 6) for f in (0.0, 0.5, 1.0, 2.0)] == [1.0, 0.6, 0.2, 0.2]

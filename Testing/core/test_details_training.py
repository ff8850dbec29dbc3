"""Training of the network for structures in detail: what it is shown, what counts, and that a stopped run goes on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mkd_core.inference.execution import Executor
from mkd_core.io.bundle import default_bundle_path
from mkd_core.io.detail_weights import load_details
from mkd_core.structures import DETAILED, IGNORE, labelled
from mkd_core.synthesis.tissues import Tissue as T
from mkd_core.training import details
from Testing.support.known_heart import KnownBundle

LABEL = {structure.key: structure.label for structure in labelled(DETAILED)}


def a_box(seed: int, side: int = 24) -> details.Box:
    """A box in which the appendage is the bright corner of a dark atrium."""
    rng = np.random.default_rng(seed)
    tissues, seven = np.full((side,) * 3, T.FAT, np.uint8), np.zeros((side,) * 3, np.uint8)
    low = rng.integers(2, 6, 3)
    z, y, x = (slice(first, first + 14) for first in low)
    tissues[z, y, x], seven[z, y, x] = T.LA, 3
    tissues[z, y, x][:7] = T.LA_APPENDAGE
    image = np.select([tissues == T.LA_APPENDAGE, tissues == T.LA], [0.8, -0.2], -0.8)
    views = tuple((image + rng.normal(0, 0.05, image.shape)).astype(np.float16) for _ in range(2))
    return details.Box(views, seven, tissues)


RECIPE = details.Recipe(
    boxes=3, first_boxes=3, steps=60, patch=16, batch=2, peak_lr=1e-2, channels=(4, 8), name="tiny", version="1"
)


@pytest.fixture
def pool(tmp_path):
    (tmp_path / "pool").mkdir()
    for number in range(RECIPE.boxes):
        a_box(number).write(tmp_path / "pool" / f"box_{number:05d}.npz")
    return tmp_path / "pool"


def test_ends_that_only_a_convention_sets_count_in_no_loss():
    tissues, seven = np.full((20, 9, 9), T.LUNG, np.uint8), np.zeros((20, 9, 9), np.uint8)
    tissues[:8], tissues[8:16], tissues[16:] = T.ASCENDING_AORTA, T.AORTA_ARCH_DESCENDING, IGNORE
    tissues[:, :, :4] = [[[T.PULMONARY_VEIN_STUB]]]
    tissues[10:, :, :4] = T.PULMONARY_VEINS
    tissues[14:, :, :4] = T.LUNG_VESSEL
    seven[:4, :, 4:] = 6  # the arch begins later than the prediction of the ascending aorta ends
    target = details.target_of(tissues, seven, 2.0)
    aorta = target[:, 4, 6]
    assert list(aorta[:6]) == [0] * 6, "what the seven have, and what they missed far from the arch, is not the arch"
    assert list(aorta[6:8]) == [IGNORE] * 2 and set(aorta[8:16]) == {LABEL["DAo"]} and set(aorta[16:]) == {IGNORE}
    vein = target[:, 4, 1]
    assert set(vein[:14]) == {LABEL["PV"]}, "a vein begins where the atrium of the seven ends"
    assert set(vein[14:16]) == {IGNORE} and set(vein[18:]) == {0}


def test_behind_an_aorta_that_a_heart_map_cuts_lengthwise_nothing_is_known():
    tissues = np.full((20, 40, 40), T.FAT, np.uint8)
    tissues[:, 10:] = T.SPONGY_BONE
    tissues[:, 5:10, 15:20] = T.AORTA_ARCH_DESCENDING
    seven = np.zeros(tissues.shape, np.uint8)
    target = details.target_of(tissues, seven, 2.0)
    assert (target[:, 10:20, 15:20] == IGNORE).all() and (target[:, 5:10, 15:20] == LABEL["DAo"]).all()
    assert not target[:, 30:].any() and not target[:, 10:, 30:].any()
    tissues[:, 10:12] = T.MEDIASTINAL_FAT  # a whole aorta does not touch the spine
    assert not (details.target_of(tissues, seven, 2.0) == IGNORE).any()


def test_small_structures_are_shown_as_often_as_large_ones():
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[:, :20], labels[2, 38, 2] = LABEL["DAo"], LABEL["CS"]
    rng = np.random.default_rng(0)
    pieces = [details._cut(labels, details._draw_place(labels, 16, rng), 16) for _ in range(200)]
    assert 0.3 < np.mean([(piece == LABEL["CS"]).any() for piece in pieces]) < 0.6
    assert all(piece.shape == (16, 16, 16) for piece in pieces)
    assert details._cut(labels[:10], [0, 0, 0], 16).shape == (16, 16, 16)


def test_a_stopped_run_goes_on_and_its_weights_are_a_file_that_loads(pool, tmp_path):
    short = dataclasses.replace(RECIPE, steps=10)
    details.train(pool, short, 2.0, tmp_path)
    before = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    details.train(pool, RECIPE, 2.0, tmp_path)
    after = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (before["step"], after["step"]) == (10, 60)
    bundle = KnownBundle()
    details.save(tmp_path, RECIPE, bundle)
    weights = load_details(tmp_path / "detailed.safetensors")
    assert weights.metadata["training"]["steps"] == after["step"] and weights.metadata["training"]["boxes"] == 3
    weights.check_fits(bundle)
    box = a_box(9)
    given = details.given_to_network(*(torch.from_numpy(a) for a in (box.views[0].astype(np.float32), box.seven)))
    found = weights.network()(given).argmax(dim=1)[0].numpy() == LABEL["LAA"]
    assert (found == (box.tissues == T.LA_APPENDAGE)).mean() > 0.95, "it has learnt what the boxes show"


def test_a_run_starts_from_other_weights_and_ends_with_their_moving_average(pool, tmp_path):
    details.train(pool, RECIPE, 2.0, tmp_path)
    known = details.save(tmp_path, RECIPE, KnownBundle())
    (tmp_path / "recipe.toml").write_text('start = "detailed.safetensors"\nsteps = 3\naverage_decay = 0.9\n')
    read = details.Recipe.read(tmp_path / "recipe.toml")
    still = dataclasses.replace(
        RECIPE, start=read.start, steps=read.steps, average_decay=read.average_decay, peak_lr=0.0
    )
    assert_same = torch.testing.assert_close
    found = details.train(pool, still, 2.0, tmp_path / "still").state_dict()
    for name, tensor in known.network().state_dict().items():
        if "running" not in name and "num_batches" not in name:  # which follow the images at any rate of learning
            assert_same(found[name], tensor, msg=f"{name}: a run that does not learn ends where it starts")
    learning = dataclasses.replace(still, peak_lr=1e-2)
    average = details.train(pool, learning, 2.0, tmp_path / "learning").state_dict()
    last = torch.load(tmp_path / "learning" / "checkpoint.pt", weights_only=True)["network"]
    moved = {
        name: (last[name] - one).abs().max() for name, one in known.network().state_dict().items() if "head" in name
    }
    behind = {name: (last[name] - average[name]).abs().max() for name in moved}
    assert all(0 < behind[name] < 2 * moved[name] for name in moved), "the average follows"
    saved = details.save(tmp_path / "learning", learning, KnownBundle())
    assert saved.metadata["training"]["started_from"] == known.identity
    assert_same(saved.network().state_dict()["head.weight"], average["head.weight"].half().float())


def test_a_box_of_the_pool_is_a_function_of_its_number_and_shows_a_whole_heart(tmp_path):
    bundle = KnownBundle()
    executor = Executor(bundle, torch.device("cpu"), torch.float32)
    box = details.make_box([], bundle, executor, RECIPE, 1)
    assert len(box.views) == 2 and {view.shape for view in box.views} == {box.seven.shape} == {box.tissues.shape}
    assert set(box.seven.shape) <= {side * bundle.stride for side in range(1, 60)}
    assert {T.LV, T.LA_APPENDAGE, T.SVC, T.AORTA_ARCH_DESCENDING} <= set(np.unique(box.tissues))
    box.write(tmp_path / "box.npz")
    again = details.Box.read(tmp_path / "box.npz")
    assert all(
        np.array_equal(one, other)
        for one, other in zip((*box.views, box.seven, box.tissues), (*again.views, again.seven, again.tissues))
    )


def test_the_recipe_beside_the_weights_is_complete():
    recipe = details.Recipe.read(default_bundle_path().with_name("detailed.toml"))
    assert recipe.name and recipe.version and recipe.licence and recipe.data and recipe.last_heart == 190
    assert recipe.architecture["out_channels"] == len(DETAILED) + 1
    rates = [details.learning_rate(recipe, step) for step in range(0, recipe.steps + 1, 50)]
    assert max(rates) <= recipe.peak_lr and rates[-1] < 1e-6 and rates[0] < 0.2 * recipe.peak_lr


def test_the_learning_rate_goes_up_again_at_a_restart_to_half_as_much_and_then_down_to_nothing():
    recipe = dataclasses.replace(RECIPE, steps=1000, restarts=(600,), peak_lr=1e-2)
    rates = np.array([details.learning_rate(recipe, step) for step in range(1001)])
    assert rates[599] < 1e-6 and rates[1000] < 1e-9
    assert rates[:600].max() == pytest.approx(1e-2, rel=0.01) and rates[600:].max() == pytest.approx(5e-3, rel=0.01)
    assert (np.diff(rates)[612:] < 0).all(), "the second way down has no step"

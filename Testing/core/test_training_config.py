"""Settings of a training run: typed, bounded, refused by name."""

import dataclasses
import tomllib

import pytest

from mkd_core.errors import InputError
from mkd_core.io.bundle import default_bundle_path
from mkd_core.training.config import TrainingConfig, config_from, load_config, settings_text


def test_the_printed_settings_are_the_defaults_and_can_be_read_back():
    assert config_from(tomllib.loads(settings_text())) == TrainingConfig()


def test_every_setting_says_what_it_means():
    def meanings(kind):
        for one in dataclasses.fields(kind):
            if dataclasses.is_dataclass(
                one.default_factory if one.default is dataclasses.MISSING else type(one.default)
            ):
                yield from meanings(one.default_factory)
            elif one.name != "stages":
                yield one.name, one.metadata["meaning"]

    found = dict(meanings(TrainingConfig))
    assert len(found) > 40 and all(len(meaning) > 10 for meaning in found.values())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method": {"tempreture": 2.0}}, ["“method.tempreture”", "“method.temperature”"]),
        ({"target": "PET"}, ["“target”", "'CT', 'MR'"]),
        ({"method": {"distillation": "no"}}, ["“method.distillation”", "'real-to-syn'"]),
        ({"stages": [{"steps": 100}, {"steps": -1}]}, ["“stages[1].steps”", "at least 1 steps", "-1"]),
        ({"stages": [{"spacing_mm": 40}]}, ["“stages[0].spacing_mm”", "0.3 to 10 mm", "40"]),
        ({"stages": [{"patch": 40}]}, ["“stages[0].patch”", "multiple of 16"]),
        ({"stages": {"steps": 5}}, ["“stages”", "list"]),
        ({"run": {"seed": "one"}}, ["“run.seed”", "whole number", "'one'"]),
        ({"run": {"seed": True}}, ["“run.seed”", "whole number"]),
        ({"run": {"seed": 1.5}}, ["“run.seed”", "whole number"]),
        ({"method": {"alignment": "yes"}}, ["“method.alignment”", "true or false"]),
        ({"method": {"class_weights": [1.0, 2.0]}}, ["“method.class_weights”", "8 numbers"]),
        ({"data": {"ct_window": [700.0, -300.0]}}, ["“data.ct_window”", "rise"]),
        ({"data": {"ct_window": [1.0]}}, ["“data.ct_window”", "2 values"]),
        ({"data": {"mr_percentiles": [1, 400]}}, ["“data.mr_percentiles[1]”", "0 to 100"]),
        ({"data": {"cases": "a", "hearts": "b"}}, ["“data.cases”", "“data.hearts”"]),
        ({"data": 5}, ["“data”", "table"]),
        ({"run": {"average_decay": float("nan")}}, ["“run.average_decay”"]),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(values, words):
    with pytest.raises(InputError) as refused:
        config_from(values)
    assert [word for word in words if word not in str(refused.value)] == []


def test_a_file_of_settings_counts_its_paths_from_its_own_folder(tmp_path):
    (tmp_path / "run.toml").write_text(
        'out = "runs/one"\n[data]\ncases = "MMWHS"\n[run]\nlocaliser = "heart.safetensors"\n'
    )
    config = load_config(tmp_path / "run.toml")
    assert config.out == str(tmp_path / "runs/one")
    assert config.data.cases == str(tmp_path / "MMWHS") and config.data.folder == ""
    assert config.run.localiser == str(tmp_path / "heart.safetensors")


def test_changes_replace_what_the_file_says_and_count_their_paths_from_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "run.toml").write_text('out = "one"\n[data]\nhearts = "here"\nown_hearts = 5\n')
    monkeypatch.chdir(tmp_path)
    config = load_config(
        tmp_path / "settings" / "run.toml",
        ["data.hearts=hearts folder", "data.own_hearts=7", "run.device=cpu", "method.class_weights=[1,1,1,1,1,1,1,2]"],
    )
    assert (config.data.hearts, config.data.own_hearts) == (str(tmp_path / "hearts folder"), 7)
    assert (config.run.device, config.method.class_weights[-1]) == ("cpu", 2.0)
    assert config.out == str(tmp_path / "settings" / "one")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("hearts", "does not set anything"),
        ("=5", "does not set anything"),
        ("data.heart=x", "“data.heart”"),
        ("out.more=x", "“out.more”"),
        ("data.own_hearts=many", "whole number"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(tmp_path, change, words):
    (tmp_path / "run.toml").write_text('out = "one"\n')
    with pytest.raises(InputError, match=words):
        load_config(tmp_path / "run.toml", [change])


@pytest.mark.parametrize("text", ["target = ", "\x00", "[data\n"])
def test_a_file_that_is_not_toml_is_refused(tmp_path, text):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(InputError, match="“run.toml” is not a TOML file"):
        load_config(tmp_path / "run.toml")


def test_the_default_weights_recipe_can_be_read_and_ends_with_the_whole_method():
    config = load_config(default_bundle_path().with_suffix(".toml"), ["data.hearts=hearts"])
    assert (
        config.method.scheme == "mutual-distillation"
        and config.method.alignment
        and config.method.distillation == "both"
    )
    assert config.method.pretrain_steps < config.steps
    assert config.data.last_heart == 200, "test hearts are never read"


def test_generators_rest_only_where_a_run_starts_with_some():
    with pytest.raises(InputError, match="needs generators that have learnt"):
        config_from({"method": {"freeze_generators": True}})
    assert config_from(
        {"method": {"freeze_generators": True}, "run": {"start": "weights.safetensors"}}
    ).method.freeze_generators


def test_steps_belong_to_stages_in_order():
    config = config_from({"stages": [{"steps": 3}, {"steps": 2}]})
    assert config.steps == 5
    assert [config.stage_at(step)[1:] for step in range(5)] == [(0, 0), (0, 0), (0, 0), (1, 3), (1, 3)]
    with pytest.raises(ValueError, match="ends at step 5"):
        config.stage_at(5)

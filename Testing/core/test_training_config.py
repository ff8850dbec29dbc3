"""Settings of a training run: typed, bounded, refused by name."""

import dataclasses
import tomllib

import pytest

from mkd_core import cli
from mkd_core.errors import InputError
from mkd_core.io.bundle import default_bundle_path
from mkd_core.training.config import Phase, TrainingConfig, config_from, load_config, settings_text
from mkd_core.training.recipes import RECIPES, phases
from mkd_core.training.schedule import plan_at, translates


def test_the_printed_settings_are_the_defaults_and_can_be_read_back():
    assert config_from(tomllib.loads(settings_text())) == TrainingConfig() == RECIPES["paper"]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_that_the_command_offers_can_be_printed_and_read_back(name, capsys):
    cli.main(["train", "--settings", name])
    assert config_from(tomllib.loads(capsys.readouterr().out)) == RECIPES[name]


def test_a_recipe_trains_generators_after_s_real_has_learnt_and_lets_them_rest_after():
    few = RECIPES["few-labels"]
    plans = [plan_at(few, step) for step in (0, int(0.4 * few.steps), few.steps - 1)]
    assert [plan.generators for plan in plans] == ["off", "train", "frozen"]
    assert {plan.cross_supervision for plan in plans} == {1.0} and translates(few, few.steps)
    assert [phase.steps for phase in phases(4)] == [1, 1, 0]


def test_every_setting_says_what_it_means():
    def meanings(kind):
        for one in dataclasses.fields(kind):
            if dataclasses.is_dataclass(
                one.default_factory if one.default is dataclasses.MISSING else type(one.default)
            ):
                yield from meanings(one.default_factory)
            elif one.name not in ("stages", "phases"):
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
        # what its bundle could not say
        ({"bundle": {"box_mm": [256, 40, 320]}}, ["“bundle.box_mm[1]”", "from 50 to 1000 mm", "40"]),
        ({"stages": [{"spacing_mm": 40}]}, ["“stages[0].spacing_mm”", "0.3 to 10 mm", "40"]),
        ({"stages": [{"patch": 40}]}, ["“stages[0].patch”", "multiple of 16"]),
        ({"stages": {"steps": 5}}, ["“stages”", "list"]),
        ({"run": {"seed": "one"}}, ["“run.seed”", "whole number", "'one'"]),
        ({"run": {"seed": True}}, ["“run.seed”", "whole number"]),
        ({"run": {"seed": 1.5}}, ["“run.seed”", "whole number"]),
        ({"phases": [{"distillation": "yes"}]}, ["“phases[0].distillation”", "true or false"]),
        ({"phases": [{"generators": "rest"}]}, ["“phases[0].generators”", "'frozen'"]),
        ({"phases": [{"steps": 0}, {}]}, ["“phases[0].steps”", "only the last phase"]),
        ({"phases": []}, ["“phases”", "list"]),
        ({"phases": [{}], "method": {"alignment": False}}, ["“phases”", "“method.alignment”"]),
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
    with pytest.raises(InputError, match=r"“run\.toml” is not a TOML file"):
        load_config(tmp_path / "run.toml")


def test_the_default_weights_recipe_can_be_read_and_its_segmentors_teach_each_other_and_learn_all_labels():
    config = load_config(default_bundle_path().with_suffix(".toml"), ["data.hearts=hearts"])
    assert config.method.scheme == "mutual-distillation" and config.method.distillation == "both"
    last, first = config.phase_at(config.steps - 1)
    assert 0 < first < config.steps and last.generators == "frozen" and config.run.start
    assert config.phases[0].distillation and all(phase.cross_supervision > 0 for phase in config.phases)
    assert config.data.last_heart == 200, "test hearts are never read"


def test_generators_are_frozen_only_where_a_run_starts_with_some_or_has_trained_them():
    with pytest.raises(InputError, match="needs generators that have learnt"):
        config_from({"phases": [{"steps": 5, "generators": "off"}, {"generators": "frozen"}]})
    frozen = [{"generators": "frozen"}]
    config_from({"phases": frozen, "run": {"start": "weights.safetensors"}})
    config_from({"phases": [{"steps": 5}, *frozen]})


WHOLE, APART = Phase(), Phase(steps=80, generators="off", distillation=False)


@pytest.mark.parametrize(
    ("method", "phases"),
    [
        ({"alignment": True}, (WHOLE,)),
        ({"alignment": False}, (Phase(generators="off"),)),
        ({"pretrain_steps": 80}, (APART, WHOLE)),
        ({"separate_steps": 80, "distillation_ramp": 9}, (APART, Phase(distillation_ramp=9))),
        ({"separate_steps": 80, "alignment": False}, (APART, Phase(generators="off"))),
        (
            {"separate_steps": 80, "separate_alignment": True},
            (dataclasses.replace(APART, generators="frozen"), WHOLE),
        ),
        (
            {"pretrain_steps": 80, "pretrain_alignment": True, "freeze_generators": True},
            (dataclasses.replace(APART, generators="frozen"), Phase(generators="frozen")),
        ),
        ({"resting_generators": True, "distillation_ramp": 3}, (Phase(generators="frozen", distillation_ramp=3),)),
    ],
)
def test_files_with_the_flags_of_earlier_versions_load_as_phases(method, phases):
    with pytest.warns(FutureWarning, match="use “phases” instead"):
        config = config_from({"method": {**method, "temperature": 3.0}, "run": {"start": "weights.safetensors"}})
    assert config.phases == phases and config.method.temperature == 3.0


def test_a_flag_of_earlier_versions_is_checked_under_its_name():
    with (
        pytest.warns(FutureWarning),
        pytest.raises(InputError, match=r"“method\.pretrain_steps” must be a whole number"),
    ):
        config_from({"method": {"pretrain_steps": "many"}})


def test_phases_follow_each_other_and_the_last_one_has_no_end():
    config = config_from({"stages": [{"steps": 9}], "phases": [{"steps": 2}, {"steps": 3}, {"steps": 1}]})
    assert [config.phase_at(step)[1] for step in range(9)] == [0, 0, 2, 2, 2, 5, 5, 5, 5]


def test_steps_belong_to_stages_in_order():
    config = config_from({"stages": [{"steps": 3}, {"steps": 2}]})
    assert config.steps == 5
    assert [config.stage_at(step)[1:] for step in range(5)] == [(0, 0), (0, 0), (0, 0), (1, 3), (1, 3)]
    with pytest.raises(ValueError, match="ends at step 5"):
        config.stage_at(5)

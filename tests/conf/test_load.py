"""load(): what composes, what it refuses, and what it says."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from conf.compose import FOLDER, composer
from conf.errors import ConfigurationError
from conf.load import as_yaml, config_digest, load, read, run_folder
from conf.sweep import expand
from conf.validate import ADAPTER
from engine.config import AdagradConfig, DownpourConfig, MomentumConfig, SingleConfig


def test_the_default_is_the_quick_experiment():
    config = load()
    assert config.experiment == "quick"
    assert isinstance(config.algorithm, DownpourConfig)
    assert isinstance(config.algorithm.rule, MomentumConfig)
    assert config.model.input_size == config.data.input.crop_size == 32


def test_the_demo_has_the_recipe_of_its_header():
    config = load(overrides=["experiment=demo"])
    algorithm, images = config.algorithm, config.data.input
    assert (config.data.name, config.model.name, config.model.width_factor) == (
        "fashion-mnist",
        "A",
        0.25,
    )
    assert algorithm.rule == MomentumConfig(learning_rate=0.02, momentum=0.8, weight_decay=5e-4)
    assert (algorithm.schedule.drop_at, algorithm.schedule.drop_by) == ((0.6, 0.85), (5.0, 4.0))
    assert (algorithm.minibatch_size, algorithm.num_epochs) == (64, 16)
    assert (images.side_min, images.side_max, images.colour_shift_std) == (32, 33, 0.0)
    assert run_folder(config) == Path("outputs/demo")


def test_another_algorithm_keeps_what_it_shares_with_that_of_the_experiment():
    single = load(overrides=["experiment=demo", "algorithm=single"]).algorithm
    demo = load(overrides=["experiment=demo"]).algorithm
    assert demo.warm_start.steps > 0
    assert (single.name, single.num_epochs, single.rule) == ("single", demo.num_epochs, demo.rule)
    assert single.schedule == demo.schedule


@pytest.mark.parametrize(
    ("overrides", "datasets"),
    [
        ([], ("digits",)),
        (["transfer=none"], ()),
        (["experiment=mixed", "transfer=none"], ()),
        (["transfer=none", "transfer.datasets=[animal-mnist]"], ("animal-mnist",)),
        (["transfer=small"], load(overrides=["experiment=demo"]).transfer.datasets),
    ],
)
def test_a_choice_of_transfer_goes_before_what_the_experiment_sets_in_it(overrides, datasets):
    assert load(overrides=overrides).transfer.datasets == datasets


PHOTOS = ["data=folder", "data.path=photos"]
OWN = "data.staging.max_train_samples=300"


@pytest.mark.parametrize(
    ("overrides", "limits"),
    [
        ([], (256, 2000, 500)),
        (["experiment=demo"], (512, None, None)),
        (PHOTOS, (512, None, None)),
        (["experiment=quick", *PHOTOS], (512, None, None)),
        ([*PHOTOS, "experiment=quick"], (512, None, None)),
        ([OWN, *PHOTOS], (512, 300, None)),
        ([*PHOTOS, OWN, "experiment=quick"], (512, 300, None)),
        ([OWN], (256, 300, 500)),
        (["experiment=cifar10"], (1000, None, None)),
        (["experiment=cifar10", *PHOTOS], (512, None, None)),
        (["experiment=quick", "data=ilsvrc2012", "data.path=x"], (1000, None, None)),
    ],
)
def test_limits_of_an_experiment_are_not_for_data_that_is_chosen(overrides, limits):
    staging = load(overrides=overrides).data.staging
    found = (staging.samples_per_tar, staging.max_train_samples, staging.max_test_samples)
    assert found == limits


def test_each_run_of_a_sweep_has_the_limits_of_its_own_data():
    sweep = ["data=folder,archive", "data.path=photos", "data.staging.max_test_samples=7,null"]
    with composer("config") as conf:
        runs = expand(sweep, conf)
        limits = [read(conf, run).data.staging for run in runs]
    assert [staging.max_test_samples for staging in limits] == [7, None, 7, None]
    assert {staging.max_train_samples for staging in limits} == {None}


def test_scales_of_an_experiment_fit_its_network_whatever_the_data():
    scales = load(overrides=PHOTOS).data.input
    assert (scales.crop_size, scales.side_min, scales.side_max) == (32, 32, 33)


@pytest.mark.parametrize("key", ["algorithm.warm_start.steps=5", "algorithm.n_push=2"])
def test_settings_that_the_chosen_algorithm_lacks_are_refused(key):
    with pytest.raises(ConfigurationError, match="is no setting of algorithm=single"):
        load(overrides=["experiment=demo", "algorithm=single", key])


def test_groups_and_settings_are_overridden_together():
    config = load(overrides=["algorithm=single", "algorithm/rule=adagrad", "algorithm.seed=7"])
    assert isinstance(config.algorithm, SingleConfig)
    assert isinstance(config.algorithm.rule, AdagradConfig)
    assert config.algorithm.seed == 7


def test_an_override_may_refer_to_another_setting():
    config = load(overrides=["transfer.sides=${evaluation.multi_sides}"])
    assert config.transfer.sides == config.evaluation.multi_sides


def test_the_later_of_two_overrides_counts():
    assert load(overrides=["algorithm.n_push=2", "algorithm.n_push=3"]).algorithm.n_push == 3


def test_an_unknown_configuration_name_lists_those_there_are():
    with pytest.raises(ConfigurationError, match="no configuration named 'schema'; have config"):
        load("schema")


def test_the_environment_is_read_by_files_only(monkeypatch):
    monkeypatch.setenv("ARCHIVES", "/somewhere/else")
    assert load(overrides=["experiment=cifar10"]).data.path == (
        "/somewhere/else/cifar10-jpeg.tar.gz"
    )


def test_loading_works_from_any_folder(monkeypatch, tmp_path):
    here = load()
    monkeypatch.chdir(tmp_path)
    assert load() == here
    assert list(tmp_path.iterdir()) == []


def test_loading_leaves_hydra_as_it_was():
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        before = compose("config", ["model=vgg_a"])
        load(overrides=["model.seed=3"])
        with pytest.raises(ConfigurationError):
            load(overrides=["model.sed=3"])
        assert compose("config", ["model=vgg_a"]) == before


def test_a_thread_waits_while_another_composes():
    with ThreadPoolExecutor(max_workers=1) as pool:
        with composer("config") as conf:
            loading = pool.submit(load, overrides=["model.seed=3"])
            with pytest.raises(TimeoutError):
                loading.result(timeout=1)
            assert conf.compose(["model.seed=4"]).settings.model.seed == 4
        assert loading.result().model.seed == 3


def test_the_folder_of_a_run_follows_what_decides_its_result():
    same = load(overrides=["cluster.dashboard_port=1234", "data.input.decode_threads=2"])
    other = load(overrides=["algorithm.n_push=2"])
    assert run_folder(load()) == run_folder(same)
    assert run_folder(load()) != run_folder(other)
    assert run_folder(load()) == Path("outputs") / f"quick-{config_digest(load())}"
    assert run_folder(load(overrides=["paths.run_name=mine"])) == Path("outputs/mine")


def test_resharding_names_the_run_that_it_goes_on_with():
    resharding = ["cluster.num_shards=3", "cluster.allow_resharding=true"]
    with pytest.raises(ConfigurationError, match=r"give paths\.run_name=NAME"):
        load(overrides=resharding)
    config = load(overrides=[*resharding, "paths.run_name=mine"])
    assert run_folder(config) == Path("outputs/mine")
    allowed = [*resharding[:1], "paths.run_name=mine"]
    assert config_digest(config) == config_digest(load(overrides=allowed))


def test_the_yaml_of_a_configuration_holds_every_resolved_setting():
    config = load(overrides=["experiment=demo"])
    tree = yaml.safe_load(as_yaml(config))
    assert tree["data"]["input"]["crop_size"] == 32
    assert ADAPTER.validate_python(tree) == config

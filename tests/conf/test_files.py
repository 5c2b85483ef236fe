"""The YAML files themselves: all of them load, and say what they promise."""

import re

import pytest

from conf.compose import FOLDER, composer, groups
from conf.load import load, read
from conf.validate import ADAPTER

OPTIONS = [
    (group, path.stem)
    for group in groups()
    for path in sorted((FOLDER / group).glob("*.yaml"))
    if group != "experiment"
]
EXPERIMENTS = sorted(path.stem for path in (FOLDER / "experiment").glob("*.yaml"))
PUBLISHED = {  # data sets that live somewhere else, with images of many sizes
    path.stem
    for path in (FOLDER / "data").glob("*.yaml")
    if re.search(r"^path: null$", path.read_text(), re.MULTILINE)
} - {"folder", "archive"}


def keys_of(tree: dict[str, object], prefix: str = "") -> set[str]:
    found = set()
    for name, value in tree.items():
        found.add(prefix + name)
        if isinstance(value, dict):
            found |= keys_of(value, f"{prefix}{name}.")
    return found


def companions(*overrides: str) -> list[str]:
    """What must be given beside an option: a place for the images, the paper's sizes, or files."""
    if "cluster=tls" in overrides:
        return [f"cluster.tls.{name}_file={name}.pem" for name in ("ca", "certificate", "key")]
    if any(text.startswith("algorithm/optimiser=") for text in overrides):
        return ["algorithm=sandblaster"]
    options = {text.partition("=")[2] for text in overrides}
    if options & {"imagenet", *PUBLISHED} or any(name.startswith("vgg_") for name in options):
        return ["experiment=imagenet_d", "data.path=there"]
    return ["data.path=there"] if options & {"folder", "archive", "imagenet_d"} else []


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_loads_and_shows_every_setting_it_has(group, option):
    choice = f"{group}={option}"
    with composer("config") as conf:
        config = read(conf, [choice, *companions(choice)])
        shown = conf.compose([choice, *companions(choice)]).keys
    section = group.replace("/", ".") + "."
    inside = {key for key in keys_of(ADAPTER.dump_python(config)) if key.startswith(section)}
    assert inside
    assert inside <= shown


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_loads_and_bears_its_own_name(experiment):
    choice = f"experiment={experiment}"
    assert load(overrides=[choice, *companions(choice)]).experiment == experiment


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize(
    ("algorithm", "rule"),
    [
        ("single", "sgd"),
        ("downpour", "adagrad"),
        ("synchronous", "adamw"),
        ("sandblaster", "momentum"),
        ("mixed", "momentum"),
    ],
)
def test_an_experiment_goes_with_every_algorithm_and_rule(experiment, algorithm, rule):
    choices = [f"experiment={experiment}", f"algorithm={algorithm}", f"algorithm/rule={rule}"]
    config = load(overrides=[*choices, *companions(*choices)])
    assert config.algorithm.rule.name == rule
    assert config.algorithm.name == ("sandblaster" if algorithm == "mixed" else algorithm)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_opens_with_command_cost_and_expectation(experiment):
    lines = (FOLDER / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    head = "\n".join(lines[1 : next(i for i, line in enumerate(lines) if line[:1] != "#")])
    labels = re.findall(r"^# (Command|Cost|Expect|RESULT):", head, re.MULTILINE)
    assert [label.replace("RESULT", "Expect") for label in labels] == ["Command", "Cost", "Expect"]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_says_what_it_is(group, option):
    first = (FOLDER / group / f"{option}.yaml").read_text().splitlines()[0]
    assert re.match(r"# .{12,}", first)


@pytest.mark.parametrize("option", sorted(PUBLISHED - {"imagenet_folder"}))
def test_every_published_data_set_tells_command_cost_and_expectation(option):
    head = (FOLDER / "data" / f"{option}.yaml").read_text()
    for label in ("Command", "Cost", "Expect"):
        assert re.search(rf"^# {label}: .{{12,}}", head, re.MULTILINE)

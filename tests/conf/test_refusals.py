"""What load() refuses, and what it says."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import FOLDER, Composer, composer
from conf.errors import ConfigurationError
from conf.load import read


@pytest.fixture(scope="module")
def conf() -> Iterator[Composer]:
    with composer("config") as conf:
        yield conf


def refused(conf: Composer, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        read(conf, overrides)
    return caught.value.problems


def test_every_problem_is_told_at_once_in_the_order_of_the_overrides(conf):
    told = refused(
        conf,
        "algorithm.npush=4",
        "algorithm.minibatch_size=big",
        "algorithm.n_fetch=0",
        "evaluation.single_side=16",
        "experiment=demoo",
        "model.seed=${model.sed}",
        "cluster.heartbeat_timeout_s=1",
        "a.b=[1,2",
    )
    for text, part in zip(
        told,
        (
            "unknown key 'algorithm.npush'; did you mean 'algorithm.n_push'?",
            'algorithm.minibatch_size should be a valid integer, got "big"',
            "algorithm.n_fetch should be greater than or equal to 1, got 0",
            "did you mean 'demo'? Options: cifar10, demo, imagenet_d, mixed, none, quick",
            "Interpolation key 'model.sed' not found",
            "not understood at character 9",
        ),
        strict=True,
    ):
        assert part in text


def test_a_contradiction_is_told_beside_unrelated_refused(
    conf,
):
    told = refused(
        conf, "algorithm.n_fetch=0", "data.input.flip=maybe", "evaluation.single_side=16"
    )
    assert [text.split("'")[1] for text in told] == [
        "algorithm.n_fetch=0",
        "data.input.flip=maybe",
        "evaluation.single_side=16",
    ]


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["n_push=4"], "did you mean 'algorithm.n_push'?"),
        (["algorithm.learning_rate=0.1"], "did you mean 'algorithm.rule.learning_rate'?"),
        (["modle=vgg_a"], "did you mean 'model'?"),
        (["algorithm/rul=sgd"], "did you mean 'algorithm/rule'?"),
        (["zzz=1"], "known are algorithm, cluster, data, evaluation"),
        (["algorithm.schedule={drop_att: [0.5]}"], "did you mean 'algorithm.schedule.drop_at'?"),
        (["model=vgg_x"], "Options: narrow, vgg_a, vgg_a_lrn, vgg_b, vgg_c, vgg_d, vgg_e"),
        (["algorithm.rule=adagrad"], "write algorithm/rule=adagrad"),
        (["algorithm.name=single"], "write algorithm=single"),
        (["algorithm=single", "algorithm.n_push=4"], "no setting of algorithm=single"),
        (["algorithm/rule=sgd", "algorithm.rule.momentum=0"], "no setting of algorithm/rule=sgd"),
        (["+algorithm.n_push=4"], "leave out the plus sign"),
        (["+experiment=demo"], "leave out the plus sign"),
        (["+algorithm.nesterov=true"], "unknown key 'algorithm.nesterov'"),
        (["++algorithm.nesterov=true"], "unknown key 'algorithm.nesterov'"),
        (["~data"], "an option is always chosen"),
        (["~algorithm.npush"], "did you mean 'algorithm.n_push'?"),
        (["experiment=null"], "an option is always chosen"),
        (["demo"], "no '=' in it"),
        (["=3"], "nothing before the '='"),
        (["algorithm.n_push=1,2"], "several values need a sweep"),
        (["hydra.verbose=true"], "for the command line only"),
        (["data@other=folder"], "leave out '@other'"),
        (["model._target_=os.system"], "_target_ is refused"),
        (["model.name=${oc.env:HOME}"], "resolvers"),
        (["algorithm.seed=true"], "should be a valid integer, got true"),
        (["algorithm.n_push=2.0"], "should be a valid integer, got 2.0"),
        (["algorithm.n_push='2'"], "should be a valid integer"),
        (["algorithm.rule.learning_rate=inf"], "finite"),
        (["model.width_factor=nan"], "finite"),
        (["model.head_widths=[8]"], "model.head_widths[1] must be given"),
        (["evaluation.multi_sides=[40,x]"], "evaluation.multi_sides[1] should be a valid integer"),
        (["algorithm.schedule=null"], "algorithm.schedule should be an object"),
        (["data.input.side_max=20"], "side_max=20 is below side_min=32"),
        (["data=folder"], "source=folder needs path"),
        (["data.name=mnist"], "animal-mnist, digits, fashion-mnist"),
        (["transfer.datasets=[digits,mnist]"], "transfer.datasets names 'mnist'"),
        (["data.input.crop_size=28"], "crop_size=28 differs from model.input_size=32"),
        (["transfer.sides=[16]"], "transfer.sides has a test scale of 16 pixels, below"),
        (["paths.run_name=../elsewhere"], "paths.run_name should match pattern"),
        (["paths.run_name=2026"], "quote it: \"paths.run_name='2026'\""),
        (["cluster.host=0.0.0.0"], "without TLS; choose cluster=tls"),
        (
            ["cluster=tls", "cluster.tls.ca_file=a", "cluster.tls.certificate_file=b"],
            "cluster.tls.key_file must be given",
        ),
        (
            [
                "algorithm=synchronous",
                "cluster=tls",
                "cluster.tls.ca_file=ca.pem",
                "cluster.tls.certificate_file=c.pem",
                "cluster.tls.key_file=k.pem",
                "cluster.host=0.0.0.0",
            ],
            "gloo or nccl, which have no TLS",
        ),
    ],
)
def test_a_bad_override_is_refused_and_named(conf, overrides, part):
    (told,) = refused(conf, *overrides)
    assert part in told
    assert repr(overrides[-1]) in told or "conf/" in told


def test_a_problem_of_a_file_is_told_with_its_line(conf):
    lines = (FOLDER / "experiment" / "quick.yaml").read_text().splitlines()
    line = next(i for i, text in enumerate(lines, start=1) if text.strip().startswith("side_min"))
    assert any(
        f"conf/experiment/quick.yaml:{line}" in p for p in refused(conf, "model.input_size=64")
    )


def test_a_setting_at_odds_with_several_others_is_told_with_each(conf):
    told = refused(conf, "model.input_size=64")
    for key in ("evaluation.single_side", "evaluation.multi_sides", "transfer.sides", "data.input"):
        assert any(key in text for text in told)


def test_no_contradiction_is_told_that_the_repair_of_a_misspelling_would_remove(conf):
    (told,) = refused(conf, "data.input.side_mx=40", "data.input.side_min=38")
    assert "did you mean 'data.input.side_max'?" in told


@settings(max_examples=10)
@given(
    st.text(max_size=12),
    st.sampled_from(["=", "+=", "/", ".n_push=", ""]),
    st.text(max_size=12),
)
def test_no_text_makes_anything_but_a_configuration_or_its_error(conf, key, middle, value):
    told: tuple[str, ...] = ("",)
    try:
        read(conf, [key + middle + value])
    except ConfigurationError as error:
        told = error.problems
    assert len(told) == 1

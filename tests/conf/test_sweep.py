"""Sweeps: which runs a command line stands for, and the table over their results."""

import json

import pytest

from conf.compose import composer
from conf.errors import ConfigurationError
from conf.sweep import Outcome, check, expand, summary


def runs(*overrides: str) -> list[list[str]]:
    with composer("config") as conf:
        return expand(overrides, conf)


def test_every_combination_is_a_run_and_the_last_override_varies_fastest():
    assert runs("a=1,2", "model.seed=5", "b=x,y") == [
        ["a=1", "model.seed=5", "b=x"],
        ["a=1", "model.seed=5", "b=y"],
        ["a=2", "model.seed=5", "b=x"],
        ["a=2", "model.seed=5", "b=y"],
    ]


def test_ranges_and_globs_are_expanded():
    assert runs("algorithm.n_push=range(1,4)", "model=glob(vgg_a*)") == [
        [f"algorithm.n_push={n}", f"model={name}"]
        for n in (1, 2, 3)
        for name in ("vgg_a", "vgg_a_lrn")
    ]


def test_an_interval_is_refused_because_it_has_no_steps():
    with pytest.raises(ConfigurationError, match=r"interval\(0,1\)'"):
        runs("model.dropout=interval(0,1)")


def test_the_problems_of_all_runs_are_told_once_each():
    with composer("config") as conf, pytest.raises(ConfigurationError) as caught:
        check([["algorithm.n_push=0", "a=1"], ["algorithm.n_push=2", "a=1"]], conf)
    told = caught.value.problems
    assert len(told) == 2
    assert any("unknown key 'a'" in text for text in told)
    assert any("n_push" in text for text in told)


def test_runs_that_would_overwrite_each_other_are_refused():
    both = [["experiment=demo", f"algorithm.n_push={n}"] for n in (1, 2)]
    with composer("config") as conf:
        with pytest.raises(ConfigurationError, match="outputs/demo"):
            check(both, conf)
        check([[*run, "paths.run_name=null"] for run in both], conf)
        check([both[0], both[0]], conf)


def test_the_table_shows_what_differs_and_what_came_of_it(tmp_path):
    outcomes = []
    for n_push, error in ((1, 0.125), (4, 0.25)):
        folder = tmp_path / f"run-{n_push}"
        folder.mkdir()
        figures = {"evaluation.multi_scale.top1_error": error, "training.num_samples": 4000}
        (folder / "summary.json").write_text(json.dumps(figures))
        outcomes.append(Outcome((f"algorithm.n_push={n_push}", "model.seed=1"), folder, None))
    outcomes.append(Outcome(("algorithm.n_push=8", "model.seed=1"), None, ValueError("a|b\nc")))
    rows = [[cell.strip() for cell in line.split(" | ")] for line in summary(outcomes).splitlines()]
    assert [row[1:4] for row in rows] == [
        ["algorithm.n_push", "evaluation.multi_scale.top1_error", "training.num_samples"],
        ["---", "---", "---"],
        ["1", "0.125", "4000"],
        ["4", "0.25", "4000"],
        ["8", "", ""],
    ]
    assert rows[4][0] == "| failed: ValueError: a\\|b"

"""Downpour, then Sandblaster, then Downpour again: one run, one loss curve."""

from collections.abc import Iterator

import pytest
import torch
from distributed import Client

from engine import checkpoint
from engine.config import DownpourConfig, SgdConfig
from engine.dask_phases import phase_settings, train_phases
from engine.sandblaster.config import PhaseConfig, SandblasterConfig
from tasks.cluster import open_cluster
from tasks.report.history import history_of
from tests.engine.problems import NUM_SAMPLES, classifier
from tests.engine.rows import Listener, Meddler, StoppedByTestError, When, in_file, stop
from tests.engine.sandblaster.doomed import CLUSTER

pytestmark = pytest.mark.dask
CONFIG = SandblasterConfig(
    minibatch_size=4,
    num_epochs=12,
    rule=SgdConfig(learning_rate=0.1),
    phases=(
        PhaseConfig(algorithm="downpour", share=0.25),
        PhaseConfig(algorithm="sandblaster", share=0.5),
        PhaseConfig(algorithm="downpour", share=0.25),
    ),
)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with open_cluster(CLUSTER) as client:
        yield client


def test_every_phase_begins_where_the_one_before_ended_and_the_curve_is_one(client, tmp_path):
    heard = Listener()
    result = train_phases(client, classifier, CONFIG, CLUSTER, tmp_path, {}, heard)

    ends = [checkpoint.read(max((tmp_path / f"phase-{k}/checkpoints").glob("0*"))) for k in (0, 1)]
    first = heard.of("iteration")[0]
    assert first["iteration"] == 0
    assert first["loss"] == pytest.approx(whole_loss(ends[0].read_parameters()), rel=1e-5)
    assert torch.equal(
        checkpoint.read(max((tmp_path / "phase-2/checkpoints").glob("0*"))).read_parameters(),
        result.parameters,
    )
    assert [row["algorithm"] for row in heard.of("phase")] == [p.algorithm for p in CONFIG.phases]
    for name in ("time_s", "samples"):
        values = [r[name] for r in heard if name in r and r["event"] in ("progress", "iteration")]
        assert values == sorted(values)
    assert len(heard.of("start")) == len(heard.of("finished")) == 1
    assert heard[-1]["samples"] == result.num_samples >= CONFIG.num_epochs * NUM_SAMPLES

    history = history_of(in_file(tmp_path))
    assert history.complete
    assert not history.incidents
    assert {point.samples <= 3 * NUM_SAMPLES for point in history.loss} == {True, False}
    assert sum(history.samples_of.values()) >= result.num_samples
    assert whole_loss(result.parameters) < first["loss"]


def test_a_run_stopped_in_its_second_phase_goes_on_there(client, tmp_path):
    stopper = Meddler(When("iteration", 3, stop))
    with pytest.raises(StoppedByTestError):
        train_phases(client, classifier, CONFIG, CLUSTER, tmp_path, {}, stopper)
    heard = Listener()
    train_phases(client, classifier, CONFIG, CLUSTER, tmp_path, {}, heard)
    told = [row["iteration"] for row in heard.of("iteration")]
    assert told[0] in (2, 3)  # the record of the third iterate may not have been written
    assert [row["phase"] for row in heard.of("phase")] == [1, 2]
    assert heard.of("start")[0]["resumed_at_samples"] > 3 * NUM_SAMPLES


def whole_loss(parameters: torch.Tensor) -> float:
    """Mean loss over all samples."""
    from engine.ledger import Lease
    from tests.engine.problems import UNIT_SIZES

    problem, total = classifier(), 0.0
    for unit, size in enumerate(UNIT_SIZES):
        for payload, count in problem.minibatches(Lease(0, 0, unit, 0, size), size):
            total += problem.loss(parameters, payload) * count
    return total / NUM_SAMPLES


def test_a_phase_has_its_share_of_the_epochs_and_the_run_s_settings():
    settings = phase_settings(CONFIG, CONFIG.phases[0], 0)
    assert isinstance(settings, DownpourConfig)
    assert (settings.num_epochs, settings.minibatch_size, settings.rule) == (3, 4, CONFIG.rule)
    assert phase_settings(CONFIG, CONFIG.phases[1], 1).num_epochs == 6


def test_shares_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match=r"shares of phases are 0\.5: want them to add"):
        SandblasterConfig(phases=(PhaseConfig(algorithm="sandblaster", share=0.5),))

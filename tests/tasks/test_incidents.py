"""Incidents in plain words."""

from tasks.report.incidents import IncidentTeller
from tests.tasks.rows import event


def test_a_lost_process_of_a_synchronous_training_costs_all_the_way_to_the_checkpoint() -> None:
    incident = IncidentTeller().tell(event("rank_lost", 3.0, replica=1, pid=7, reason="killed"))
    assert incident is not None
    assert incident.what == "Process 1 of the synchronous training was lost: killed."
    assert "newest checkpoint" in incident.done


def test_how_a_process_ended_is_told_unless_it_ended_well() -> None:
    values = {"role": "replica", "index": 1, "pid": 7, "how": "was killed by signal 9 (SIGKILL)"}
    incident = IncidentTeller().tell(event("process_ended", 3.0, code=-9, **values))
    assert incident is not None
    assert incident.what == "Process 7 of replica 1 was killed by signal 9 (SIGKILL)."
    assert IncidentTeller().tell(event("process_ended", 3.0, code=0, **values)) is None


def test_what_every_start_has_is_no_incident() -> None:
    teller = IncidentTeller()
    assert teller.tell(event("rank_joined", 1.0, replica=0, attempt=1, pid=7)) is None
    assert teller.tell(event("warm_start_over", 2.0, samples=9, steps=3)) is None


def test_a_slow_disk_is_told_with_what_it_changes() -> None:
    incident = IncidentTeller().tell(event("checkpoint_interval", 9.0, cost_s=15.2, interval_s=434))
    assert incident is not None
    assert incident.what == "A checkpoint took 15.2 s."
    assert "434 s apart" in incident.done

"""What a batch optimiser's rows become in status, history and report."""

from typing import Any

from tasks.report.history import history_of
from tasks.report.plots import draw_plots
from tasks.report.summary import training_figures
from tasks.report.tables import incident_rows, iteration_rows, replica_rows
from tasks.training_status import TrainingStatus


def rows() -> list[dict[str, Any]]:
    """Two iterations; one portion was computed twice, and a replica was lost."""
    return [
        {"event": "start", "time_s": 0.0, "num_samples_total": 300, "resumed_at_samples": 0},
        evaluation(1.0, loss=2.0),
        iteration(1.1, number=0, samples=100, loss=2.0, norm=1.0),
        {
            "event": "replica_settled",
            "time_s": 1.5,
            "replica": 1,
            "incarnation": 1,
            "samples_returned": 20,
        },
        evaluation(2.0, loss=1.0, backups=1, backups_won=1),
        iteration(2.1, number=1, samples=200, loss=1.0, norm=0.25),
        {
            "event": "finished",
            "time_s": 3.0,
            "samples": 200,
            "elapsed_s": 3.0,
            "outcome": "gradient tolerance reached",
        },
    ]


def evaluation(time_s: float, loss: float, backups: int = 0, backups_won: int = 0) -> dict:
    return {
        "event": "evaluation",
        "time_s": time_s,
        "loss": loss,
        "seconds": 0.5,
        "portions": {"0": 3, "1": 2 + backups},
        "samples": {"0": 60, "1": 40 + 20 * backups},
        "waiting_s": {"0": 0.25, "1": 0.0},
        "backups": backups,
        "backups_won": backups_won,
    }


def iteration(time_s: float, number: int, samples: int, loss: float, norm: float) -> dict:
    fields = {"time_s": time_s, "iteration": number, "samples": samples, "loss": loss}
    return {"event": "iteration", "gradient_norm": norm, **fields}


def test_the_report_has_iterations_portions_backup_tasks_and_waiting():
    history = history_of(rows())
    figures = training_figures(history)
    assert figures["batch"] == {
        "outcome": "gradient tolerance reached",
        "iterations": 1,
        "evaluations": 2,
        "backup_tasks": 1,
        "backup_tasks_won": 1,
        "final_loss": 1.0,
        "final_gradient_norm": 0.25,
    }
    assert figures["waiting_s"] == 0.5
    table = replica_rows(history)
    assert [(row["samples"], row["portions"]) for row in table] == [("120", "6"), ("100", "5")]
    assert [point.value for point in history.loss] == [2.0, 1.0]
    assert "iterations.png" in {plot.file for plot in draw_plots(history)}
    assert list(iteration_rows(history)[1].values()) == [
        1,
        "2.1 s",
        "200",
        "1",
        "0.25",
        1,
        3,
        3,
        "1 (1)",
        "0.2 s",
    ]
    assert "20 samples of replica 1" in str(incident_rows(history)[0]["what happened"])


def test_the_bar_moves_with_the_iterations():
    status = TrainingStatus()
    for row in rows()[:-1]:
        status.see(row)
    assert status.fraction == 200 / 300
    assert status.loss == 1.0
    assert [point.value for point in status.gradient_norms] == [1.0, 0.25]
    assert "gradient 0.25, 1 backup tasks (1 won), 0.5 s waited" in status.line()


def test_of_many_iterations_the_table_has_some_and_the_last():
    many = [iteration(float(k), number=k, samples=k, loss=1.0, norm=1.0) for k in range(1, 1000)]
    table = iteration_rows(history_of([rows()[0], *many]))
    assert 25 <= len(table) <= 50
    assert table[-1]["iteration"] == 999

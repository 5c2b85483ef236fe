"""Names of runs."""

from datetime import date

from conf.load import load, run_folder
from flows.run import dated


def test_a_scheduled_run_has_its_usual_name_and_the_date() -> None:
    overrides = dated("config", ["experiment=demo"], date(2026, 11, 22))
    assert run_folder(load("config", overrides)).name == "demo-2026-11-22"


def test_scheduled_runs_of_one_day_share_a_folder_and_those_of_two_days_do_not() -> None:
    days = date(2026, 11, 22), date(2026, 11, 22), date(2026, 11, 23)
    folders = [run_folder(load("config", dated("config", [], day))) for day in days]
    assert folders[0] == folders[1] != folders[2]

"""The learning-rate schedule as a function of how much of the run has been lent out."""

from engine.config import ScheduleConfig


def scale_at(schedule: ScheduleConfig, fraction: float) -> float:
    """Factor on the rule's rate for samples leased at `fraction` of the run, in [0, 1]."""
    scale = 1.0
    for at, by in zip(schedule.drop_at, schedule.drop_by, strict=True):
        if fraction >= at:
            scale /= by
    return scale

"""The learning-rate schedule as a function of how much of the run has been lent out."""

import math

from engine.config import ScheduleConfig

_WARM_UP_FROM = 0.1


def scale_at(schedule: ScheduleConfig, fraction: float) -> float:
    """Factor on the rule's rate for samples leased at `fraction` of the part, in [0, 1]."""
    begin, end = schedule.part
    fraction = begin + fraction * (end - begin)
    scale = 1.0
    for at, by in zip(schedule.drop_at, schedule.drop_by, strict=True):
        if fraction >= at:
            scale /= by
    if fraction < schedule.warm_up:
        scale *= _WARM_UP_FROM + (1 - _WARM_UP_FROM) * fraction / schedule.warm_up
    match schedule.anneal:
        case "linear":
            scale *= 1 - fraction
        case "cosine":
            scale *= (1 + math.cos(math.pi * fraction)) / 2
    return scale

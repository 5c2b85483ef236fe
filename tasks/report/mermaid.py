"""Curves that the Prefect UI draws: Mermaid charts inside Markdown."""

from collections.abc import Sequence
from math import isfinite

from tasks.report.history import Point


def chart(title: str, unit: str, points: Sequence[Point], max_points: int = 40) -> str:
    """An xychart of the values against thousands of samples, thinned to `max_points` means.

    Mermaid spaces the points of a line evenly, so each is a mean over an equal stretch of samples.
    Values that are not finite are left out.
    """
    points = [point for point in points if isfinite(point.value)]
    last = max((point.samples for point in points), default=0)
    if not last:
        return ""
    width = last / max_points
    stretches: dict[int, list[float]] = {}
    for point in points:
        stretches.setdefault(min(int(point.samples / width), max_points - 1), []).append(
            point.value
        )
    means = [sum(values) / len(values) for _, values in sorted(stretches.items())]
    top = max(means) * 1.05
    return "\n".join(
        [
            "```mermaid",
            "xychart-beta",
            f'    title "{title}"',
            f'    x-axis "thousands of samples" 0 --> {last / 1000:.1f}',
            f'    y-axis "{unit}" 0 --> {top:.4g}',
            f"    line [{', '.join(f'{mean:.4g}' for mean in means)}]",
            "```",
        ]
    )

"""Accuracy against time of several algorithms: one picture, readable in grey."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure

from tasks.report.plots import png_of

Curve = Sequence[tuple[float, float]]  # seconds, accuracy in [0, 1]
#: From dark to light and back; line and mark tell the curves apart where colour does not.
_STYLES = (
    ("#000000", "-", "o"),
    ("#1f77b4", "--", "s"),
    ("#d62728", "-", "^"),
    ("#2ca02c", "-.", "D"),
    ("#7f7f7f", ":", "v"),
    ("#9467bd", "--", "x"),
)


def draw_curves(path: Path, curves: Mapping[str, Curve], goal: float) -> None:
    """Write the picture; `goal` is the accuracy that all want to reach."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(goal, color="black", linewidth=0.8, linestyle=(0, (1, 3)))
        styles = cycle(_STYLES)
        for (name, curve), (colour, line, mark) in zip(curves.items(), styles, strict=False):
            axes.plot(*zip(*curve, strict=True), line, color=colour, marker=mark, markersize=4)
            axes.lines[-1].set_label(name)
        axes.set(xlabel="seconds of training", ylabel="accuracy on the test images")
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_of(draw, height=5.0))

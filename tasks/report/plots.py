"""The plots of a report, as PNG files. Matplotlib without a display."""

import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.report.history import Point, TrainingHistory

LOSS_COLOUR, ACCURACY_COLOUR = "#1f77b4", "#d62728"
Curve = Sequence[tuple[float, float]]


class Plot(NamedTuple):
    """A finished picture."""

    title: str
    file: str
    png: bytes


def draw_plots(history: TrainingHistory) -> list[Plot]:
    """Draw every plot that the history has data for. The same history gives the same bytes."""
    plots = []
    if history.loss:
        plots.append(_draw("Loss and validation accuracy", "learning.png", history, _learning))
        plots.append(_draw("Throughput of each replica", "throughput.png", history, _throughput))
    if history.batch.gradient_norm:
        title = "Loss and largest element of the gradient"
        plots.append(_draw(title, "iterations.png", history, _iterations))
    if any(history.staleness.values()):
        plots.append(_draw("Staleness of pushes", "staleness.png", history, _staleness))
    return plots


def smooth(points: Sequence[Point], width: int = 9) -> list[Point]:
    """Running mean of the values over the last `width` points: how a noisy loss is read."""
    smoothed = []
    for i, point in enumerate(points):
        window = points[max(0, i + 1 - width) : i + 1]
        smoothed.append(point._replace(value=sum(p.value for p in window) / len(window)))
    return smoothed


def _draw(
    title: str,
    file: str,
    history: TrainingHistory,
    draw: Callable[[Figure, TrainingHistory], None],
) -> Plot:
    return Plot(title, file, png_of(lambda figure: draw(figure, history)))


def png_of(draw: Callable[[Figure], None], width: float = 10.0, height: float = 3.6) -> bytes:
    """What `draw` puts on a new figure of this size in inches, as a PNG file."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    png = io.BytesIO()
    figure.savefig(png, dpi=110)
    return png.getvalue()


def _learning(figure: Figure, history: TrainingHistory) -> None:
    """Both curves against time and against samples, side by side."""
    by_time, by_samples = figure.subplots(1, 2, sharey=True)
    loss, errors = history.loss, history.validation.get("top1_error", [])
    _learning_axes(
        by_time,
        "seconds of training",
        [(p.time_s, p.value) for p in loss],
        [(p.time_s, p.value) for p in smooth(loss)],
        [(p.time_s, 1 - p.value) for p in errors],
    )
    _learning_axes(
        by_samples,
        "training samples",
        [(p.samples, p.value) for p in loss],
        [(p.samples, p.value) for p in smooth(loss)],
        [(p.samples, 1 - p.value) for p in errors],
    )
    by_samples.locator_params(axis="x", nbins=5)  # six-digit numbers
    for phase in history.phases:
        for axes, at in ((by_time, phase.time_s), (by_samples, phase.samples)):
            axes.axvline(at, color="black", linestyle=":", linewidth=1)
            axes.annotate(
                phase.algorithm, (at, 0.02), xycoords=("data", "axes fraction"), fontsize=8
            )


def _learning_axes(axes: Axes, label: str, loss: Curve, smoothed: Curve, accuracy: Curve) -> None:
    axes.plot(*zip(*loss, strict=True), color=LOSS_COLOUR, alpha=0.25)
    axes.plot(*zip(*smoothed, strict=True), color=LOSS_COLOUR)
    axes.set(xlabel=label, ylabel="training loss")
    axes.yaxis.label.set_color(LOSS_COLOUR)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if accuracy:
        twin = axes.twinx()
        twin.plot(*zip(*accuracy, strict=True), "o-", color=ACCURACY_COLOUR, markersize=3)
        twin.set(ylabel="validation accuracy", ylim=(0, 1))
        twin.yaxis.label.set_color(ACCURACY_COLOUR)


def _iterations(figure: Figure, history: TrainingHistory) -> None:
    """The batch optimiser's iterates, of which each stands for passes over the whole data."""
    axes = figure.subplots()
    norms, done = history.batch.gradient_norm, history.batch.iterations
    axes.plot([row.samples for row in done], [row.loss for row in done], ".-", color=LOSS_COLOUR)
    axes.set(xlabel="samples processed", ylabel="loss over the batch")
    axes.yaxis.label.set_color(LOSS_COLOUR)
    axes.grid(alpha=0.3)
    twin = axes.twinx()
    positive = [p for p in norms if p.value > 0]
    twin.semilogy(
        [p.samples for p in positive], [p.value for p in positive], ".-", color=ACCURACY_COLOUR
    )
    twin.set(ylabel="largest element of the gradient")
    twin.yaxis.label.set_color(ACCURACY_COLOUR)


def _throughput(figure: Figure, history: TrainingHistory) -> None:
    axes = figure.subplots()
    for replica, points in sorted(history.throughput.items()):
        axes.plot([p.time_s for p in points], [p.value for p in points], label=f"replica {replica}")
    for incident in history.incidents:
        axes.axvline(incident.time_s, color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="seconds of training (dotted: incidents)", ylabel="images/s")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")


def _staleness(figure: Figure, history: TrainingHistory) -> None:
    counts = {replica: pushes for replica, pushes in sorted(history.staleness.items()) if pushes}
    row = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    for axes, (replica, pushes) in zip(row, counts.items(), strict=True):
        axes.bar(list(pushes), list(pushes.values()), color=LOSS_COLOUR)
        axes.grid(axis="y", alpha=0.3)
        axes.set(title=f"pushes of replica {replica}", xlabel="staleness, updates")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    row[0].set(ylabel="pushes")

"""What a replica says of its work, as rows of the event log. Pure."""

from engine.frames import Message
from engine.instructions import Record


def progress_rows(replica: int, report: Message, counted: int, samples: int) -> list[Record]:
    """Rows of a progress report.

    Args:
        counted: samples of all replicas that count by now.
        samples: those of this seat.
    """
    refusals = [
        Record("push_refused", {"replica": replica, "message": text, "pushes": count})
        for text, count in report["refused"].items()
    ]
    if report["steps"]:
        return [_progress(replica, report, counted, samples), *refusals]
    if report["staleness"]:  # of pushes that were on their way at the last report
        late = {"replica": replica, "staleness": report["staleness"]}
        return [*refusals, Record("pushes", late)]
    return refusals


def _progress(replica: int, report: Message, counted: int, samples: int) -> Record:
    row = {
        "replica": replica,
        "samples": counted,
        "replica_samples": samples,
        "loss": report["loss_sum"] / report["samples"],
        "images_per_s": report["samples"] / report["seconds"],
        "staleness": report["staleness"],
        "waiting_s": report["waiting_s"],
        "clipped": report["clipped"],
    }
    return Record("progress", row)


def late_push(replica: int, hello: Message) -> list[Record]:
    """What there is to record of a push that came after its life had been fenced."""
    if not hello.get("refused"):
        return []
    values = {"replica": replica, "message": hello["refused"], "pushes": 1}
    return [Record("push_refused", values)]

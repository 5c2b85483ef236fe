"""Who has said nothing for too long, to a coordinator that listened. Pure."""

from collections.abc import Iterable

from engine.config import ClusterConfig
from engine.seats import Seat


class Silence:
    """Judges silence at each look; the coordinator's own absence is nobody's silence.

    A coordinator that was stopped, or waited for a disk, finds what was said meanwhile unread:
    without this it would take everybody for dead.
    """

    def __init__(self, cluster: ClusterConfig) -> None:
        self.timeout_s = cluster.heartbeat_timeout_s
        self._looked: float | None = None

    def of(self, seats: Iterable[Seat], now: float) -> list[Seat]:
        """The connected ones of `seats` that have been silent for more than `timeout_s`.

        To be called a few times within `timeout_s`: what exceeds a fourth of it is absence.

        Args:
            seats: all of the run, for their `heard` is moved by an absence.
            now: clock in seconds, as in `heard`.
        """
        away_s = 0.0 if self._looked is None else now - self._looked - self.timeout_s / 4
        self._looked = now
        seats = [seat for seat in seats if seat.peer is not None]
        if away_s > 0:
            for seat in seats:
                seat.heard = min(seat.heard + away_s, now)
        return [seat for seat in seats if now - seat.heard > self.timeout_s]

    @property
    def reason(self) -> str:
        """Why they are lost."""
        return f"silent for {self.timeout_s:g} s"

"""How long somebody has waited: `with watch: ...` counts."""

import time


class Stopwatch:
    """Adds up the seconds of its blocks, which do not nest."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self._started = 0.0
        self._taken_s = 0.0

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.total_s += time.monotonic() - self._started

    def take(self) -> float:
        """Seconds since the last time that somebody took them."""
        taken_s, self._taken_s = self.total_s - self._taken_s, self.total_s
        return taken_s

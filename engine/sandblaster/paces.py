"""How many seconds each replica takes for a portion, as far as its answers tell. Pure."""

_FASTEST_S = 1e-6  # a clock may stand still between two events


class Paces:
    """One estimate a replica; they outlive the evaluation in which they were made."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def of(self, replica: int) -> float:
        """Seconds a portion; who has not answered yet is taken for as quick as the quickest."""
        return self._seconds.get(replica) or min(self._seconds.values(), default=1.0)

    def learn(self, replica: int, num_portions: int, took_s: float) -> None:
        """It took so long for a work; with every portion half of what was known before is gone."""
        seconds = max(took_s / num_portions, _FASTEST_S)
        before = self._seconds.get(replica, seconds)
        self._seconds[replica] = seconds + (before - seconds) * 0.5**num_portions

    def at_least(self, replica: int, seconds: float) -> None:
        """It is believed to take so long for each portion of a work that it has not answered."""
        if replica in self._seconds:
            self._seconds[replica] = max(self._seconds[replica], seconds)

    def forget(self, replica: int) -> None:
        """Another process takes its place."""
        self._seconds.pop(replica, None)

"""The warm start (Dean et al. 2012, 4.1): one replica alone first, then the others. Pure."""

from collections.abc import Mapping, Sequence

from engine.config import WarmStartConfig
from engine.instructions import RunFailedError

#: Folder of a run's files in which the end of its warm start is kept, as a checkpoint.
FOLDER = "warm_start"


class WarmStart:
    """Says when the replica that works alone has done enough: the first bound reached counts."""

    def __init__(self, config: WarmStartConfig, *, elapsed_s: float = 0.0, over: bool = False):
        """Begin.

        Args:
            elapsed_s: seconds of training before this attempt.
            over: an earlier attempt has ended it.
        """
        self._config = config
        self._before_s = elapsed_s
        self._began: float | None = None
        self._measured_enough = False
        self._pioneer: int | None = None
        none = not config.steps and not config.seconds and config.metric is None
        self.over = over or none

    def reached(self, num_steps: int, now: float) -> bool:
        """True when it has lasted long enough and its end has not been kept yet."""
        if self.over:
            return False
        if self._began is None:
            self._began = now - self._before_s
        steps, seconds = self._config.steps, self._config.seconds
        return (
            self._measured_enough
            or bool(steps and num_steps >= steps)
            or bool(seconds and now - self._began >= seconds)
        )

    def holds_back(self, replica: int, present: Sequence[bool]) -> bool:
        """True for all but one of the replicas that are present, until the end has been kept."""
        if self.over:
            return False
        if self._pioneer is None or not present[self._pioneer]:
            self._pioneer = replica
        return replica != self._pioneer

    def measured(self, metrics: Mapping[str, float]) -> None:
        """A checkpoint was validated.

        Raises:
            RunFailedError: the metric waited for is not among those that the problem has.
        """
        name, at_most = self._config.metric, self._config.at_most
        if self.over or name is None or at_most is None:
            return
        if name not in metrics:
            raise RunFailedError(
                f"algorithm.warm_start.metric={name}: validation measures {sorted(metrics)}; "
                "choose one of these"
            )
        self._measured_enough |= metrics[name] <= at_most

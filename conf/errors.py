"""What is wrong with a configuration: every problem at once, each with what to write instead."""

from collections.abc import Collection, Iterable, Sequence
from difflib import SequenceMatcher
from typing import Final

# Below this similarity a suggestion would only distract; 'lr' is not close to 'learning_rate'.
CLOSE: Final = 0.6


class ConfigurationError(ValueError):
    """All problems of one configuration; nothing was started."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(dict.fromkeys(problems))  # two sweep jobs may share a problem
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [f"{count} configuration error{'s' if count > 1 else ''}:"]
        lines += [f"  {number}. {text}" for number, text in enumerate(self.problems, start=1)]
        return "\n".join(lines)


def nearest(name: str, candidates: Collection[str]) -> str | None:
    """Return the candidate most like `name`, or None when none is close.

    The last part of a dotted key counts by itself too, a little less, so that `n_push` and
    `cluster.n_push` both find `algorithm.n_push`.
    """

    def similarity(candidate: str) -> float:
        whole = SequenceMatcher(None, name, candidate).ratio()
        last = SequenceMatcher(None, name.split(".")[-1], candidate.split(".")[-1]).ratio()
        return max(whole, 0.9 * last)

    best = max(sorted(candidates), key=similarity, default=None)
    return best if best is not None and similarity(best) >= CLOSE else None


def overlap(one: str, other: str) -> bool:
    """Whether two dotted keys are the same, or one is a section around the other."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


class Faults:
    """The problems found so far, and the settings whose value is unknown because of them.

    A contradiction that involves a doubtful setting is not reported: it would vanish or change
    with the repair of the first problem.
    """

    def __init__(self) -> None:
        self._found: list[tuple[int, str]] = []
        self.doubtful: set[str] = set()

    def add(self, text: str, position: int, doubtful: Iterable[str] = ()) -> None:
        """Record a problem; `position` says where in the list it is told."""
        self._found.append((position, text))
        self.doubtful.update(doubtful)

    def in_doubt(self, keys: Iterable[str]) -> bool:
        """Whether one of `keys`, or a section around it, or a part of it, is doubtful."""
        return any(overlap(key, doubt) for key in keys for doubt in self.doubtful)

    def raise_if_any(self) -> None:
        if self._found:
            raise ConfigurationError([text for _, text in sorted(self._found, key=lambda x: x[0])])

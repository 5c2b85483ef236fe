"""Words that messages of several sources share."""

from collections.abc import Collection
from typing import Final

SHOWN: Final = 5  # names listed in a message


def some(names: Collection[str]) -> str:
    """List the first names, and how many more there are."""
    shown = list(names)
    rest = len(shown) - SHOWN
    return ", ".join(shown[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")

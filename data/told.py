"""How a command of this room ends when something is wrong that its user can mend."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def told() -> Iterator[None]:
    """End the program with one message, no traceback, for bad input and what the system refuses."""
    try:
        yield
    except (ValueError, OSError) as error:
        sys.exit("\n".join([str(error), *getattr(error, "__notes__", ())]))

"""What every source raises."""


class SourceError(ValueError):
    """The source cannot be read as labelled images. The text says where, what and what to do."""

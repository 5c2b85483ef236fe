"""What makes a run this run, and what refuses to go on with another one: field by field."""

from collections.abc import Mapping

#: The number of parameter shards: the one field that may differ, if that is asked for.
SHARDS = "shards"
_SHOWN_CHARS = 200  # of a field in a message


class CheckpointMismatchError(ValueError):
    """A checkpoint belongs to another run; the message lists the fields that differ."""


def check_identity(
    name: str,
    kind: str,
    theirs: Mapping[str, str],
    ours: Mapping[str, str],
    *,
    resharding: bool = False,
) -> None:
    """Refuse what another run has made.

    Args:
        name: of what has `theirs`.
        kind: what it is, in a word.
        resharding: its number of shards may be another one.

    Raises:
        CheckpointMismatchError: with every field that differs.
    """
    different = {
        field
        for field in theirs.keys() | ours.keys()
        if theirs.get(field) != ours.get(field) and not (resharding and field == SHARDS)
    }
    if not different:
        return
    lines = [_difference(field, kind, theirs, ours) for field in sorted(different)]
    advice = "Use the configuration it was made with, or another paths.run_name."
    if SHARDS in different:
        advice += (
            f"\ncluster.allow_resharding=true goes on with another number of {SHARDS}, "
            "where nothing else differs."
        )
    raise CheckpointMismatchError(
        "\n".join([f"{name} belongs to another run; it differs in", *lines, advice])
    )


def _difference(field: str, kind: str, theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    there, here = theirs.get(field), ours.get(field)
    return f"  {field}: {kind} {_shown(there, here)}, this run {_shown(here, there)}"


def _shown(text: str | None, other: str | None) -> str:
    """A short text whole; of a long one (a list of classes) from where it differs."""
    if text is None or len(text) <= _SHOWN_CHARS:
        return str(text)
    pairs = enumerate(zip(text, other or "", strict=False))
    start = next((place for place, (one, two) in pairs if one != two), 0)
    return f"...{text[max(0, start - _SHOWN_CHARS // 2) :][:_SHOWN_CHARS]}..."

"""Commands as JSON values, ["combine", "x1", [[1.0, "x0"], [0.5, "d"]]], and back."""

from dataclasses import fields
from typing import Any, Final

from engine.batch.vector import (
    Align,
    Combine,
    Command,
    KeepSigns,
    MaxAbs,
    Multiply,
    Orthant,
    Products,
    PseudoGradient,
    SumAbs,
)

OPERATIONS: Final[dict[str, type[Command]]] = {
    "combine": Combine,
    "multiply": Multiply,
    "pseudo_gradient": PseudoGradient,
    "orthant": Orthant,
    "align": Align,
    "keep_signs": KeepSigns,
    "products": Products,
    "sum_abs": SumAbs,
    "max_abs": MaxAbs,
}
_NAMES: Final = {kind: name for name, kind in OPERATIONS.items()}


def to_wire(command: Command) -> list[Any]:
    """The operation's name, then its fields; coefficients survive JSON to the last bit."""
    return [_NAMES[type(command)], *(getattr(command, field.name) for field in fields(command))]


def from_wire(value: Any) -> Command:
    """The command that `value` describes.

    Raises:
        ValueError: `value` comes from a peer and is not what `to_wire` makes.
    """
    try:
        name, *arguments = value
        command = OPERATIONS[name]
        kinds = [field.type for field in fields(command)]
        parsed: list[Any] = [
            _READERS[str(kind)](value) for kind, value in zip(kinds, arguments, strict=True)
        ]
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"not a command: {value!r}; want one of {', '.join(OPERATIONS)} and its fields"
        ) from error
    return command(*parsed)


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"want a vector's name, got {value!r}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"want a number, got {value!r}")
    return float(value)


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError(f"want a list of names, got {value!r}")
    return tuple(_name(item) for item in value)


def _terms(value: Any) -> tuple[tuple[float, str], ...]:
    return tuple((_number(coefficient), _name(name)) for coefficient, name in value)


_READERS: Final = {
    str(str): _name,
    str(float): _number,
    str(tuple[str, ...]): _names,
    str(tuple[tuple[float, str], ...]): _terms,
}

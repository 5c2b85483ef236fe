"""Paths into a tree of plain dictionaries and lists."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]


def leaves(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield each value that is neither a dictionary nor a list, with the path to it."""
    if isinstance(node, dict | list):
        for name, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(inner, (*path, name))
    else:
        yield path, node


def dotted(path: Path) -> str:
    """Write a path as overrides do: `evaluation.multi_sides[1]`."""
    return "".join(f"[{x}]" if isinstance(x, int) else f".{x}" for x in path).removeprefix(".")


def setting(path: Path) -> Path:
    """The path of the list that an item is in: a list is set, and refused, as a whole."""
    return tuple(itertools.takewhile(lambda part: isinstance(part, str), path))


def without_tags(location: Path, tree: dict[str, Any]) -> Path:
    """Pydantic's location less the tags by which it tells the members of a union apart."""
    node: Any = tree
    path: Path = ()
    for part in location:
        if isinstance(node, dict) and part not in node and part == node.get("name"):
            continue
        path = (*path, part)
        if isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            node = node.get(part) if isinstance(node, dict) else None
    return path


def put(tree: Any, path: Path, value: Any) -> None:
    """Replace the value at `path`, which exists."""
    for part in path[:-1]:
        tree = tree[part]
    tree[path[-1]] = value


def mend(tree: Any, fallback: Any, path: Path) -> None:
    """Put the fallback's value in the place of a bad one; without one, take the bad one out."""
    *parents, last = setting(path)
    for part in parents:
        tree = tree[part]
        fallback = fallback.get(part, {})
    if last in fallback:
        tree[last] = copy.deepcopy(fallback[last])
    else:
        tree.pop(last, None)

"""Where a setting was written: the override, or the file and line, that a problem is told with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import yaml
from hydra.core.override_parser.types import Override

from conf.compose import FOLDER
from conf.errors import Faults, overlap

AFTER_ALL: Final = 1_000_000  # problems of files are told after those of overrides


class Blame(NamedTuple):
    """What a composition was made of, to tell where a problem with it comes from."""

    overrides: Mapping[int, Override]  # of settings, by place in the user's list
    choices: Mapping[str, str | None]
    faults: Faults

    def tell(self, problem: str, keys: Sequence[str], doubtful: Sequence[str] = ()) -> None:
        """Record a problem with `keys` after the overrides, or else the lines, that set them."""
        guilty = {  # by key: of two overrides of one key, the later one counts
            override.key_or_group: place
            for place, override in sorted(self.overrides.items())
            if any(overlap(override.key_or_group, key) for key in keys)
        }
        sources = [repr(self.overrides[place].input_line) for place in guilty.values()]
        prefix = f"override{'s' * (len(sources) > 1)} {', '.join(sources)}: "
        if not guilty:
            lines = [line for key in keys if (line := _written_at(key, self.choices))]
            prefix = f"{', '.join(lines)}: " if lines else ""
        place = max(guilty.values(), default=AFTER_ALL)
        self.faults.add(prefix + problem, place, doubtful)


def _written_at(key: str, choices: Mapping[str, str | None]) -> str | None:
    """`conf/experiment/demo.yaml:14` for the file that has the last word on `key`."""
    for group in sorted(choices, key=lambda name: (name != "experiment", name)):
        # An experiment's keys start at the top (`@package _global_`), others' below their group.
        package = "" if group == "experiment" else group.replace("/", ".") + "."
        if choices[group] is not None and key.startswith(package):
            path = FOLDER / group / f"{choices[group]}.yaml"
            if (line := _line(path, key.removeprefix(package))) is not None:
                return f"conf/{path.relative_to(FOLDER).as_posix()}:{line}"
    line = _line(FOLDER / "config.yaml", key)
    return None if line is None else f"conf/config.yaml:{line}"


def _line(path: Path, key: str) -> int | None:
    node = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
    line = None
    for name in key.split("."):
        if not isinstance(node, yaml.MappingNode):
            return None
        found = [(k, v) for k, v in node.value if k.value == name]
        if not found:
            return None
        (written, node) = found[0]
        line = written.start_mark.line + 1
    return line

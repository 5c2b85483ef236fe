"""Composition of the YAML files by Hydra, from any thread and inside a running Hydra job."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from conf.settings import default_settings

FOLDER: Final = Path(__file__).resolve().parent
VERSION_BASE: Final = "1.3"
_LOCK = threading.RLock()

ConfigStore.instance().store(name="schema", node=default_settings())


class Composed(NamedTuple):
    """Settings as the files and overrides give them, and the option chosen in each group."""

    settings: DictConfig
    choices: dict[str, str | None]
    keys: frozenset[str]  # dotted names of all settings and sections


class Composer:
    """Hydra's view of conf/; works only inside `composer()`."""

    def __init__(self, config_name: str, loader: ConfigLoader) -> None:
        self._config_name = config_name
        self.loader = loader
        self._done: dict[tuple[str, ...], Composed] = {}

    def options(self, group: str) -> list[str]:
        """The options of a group, sorted; none if there is no such group."""
        return self.loader.get_group_options(group) if group else []

    def compose(self, overrides: Sequence[str]) -> Composed:
        """Compose once for each list of overrides: 70 ms, and the jobs of a sweep share them."""
        key = tuple(overrides)
        if key not in self._done:
            self._done[key] = self._compose(overrides)
        return self._done[key]

    def _compose(self, overrides: Sequence[str]) -> Composed:
        everything = compose(self._config_name, list(overrides), return_hydra_config=True)
        choices: Any = OmegaConf.to_container(everything.hydra.runtime.choices)
        with open_dict(everything):
            del everything["hydra"]
        ours = {group: option for group, option in choices.items() if not group.startswith("hydra")}
        plain: Any = OmegaConf.to_container(everything)
        return Composed(everything, ours, frozenset(_keys(plain)))


def _keys(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")


def groups() -> list[str]:
    """The names of all groups of options: the folders of conf/ that hold YAML files."""
    return sorted(
        {path.parent.relative_to(FOLDER).as_posix() for path in FOLDER.glob("*/**/*.yaml")}
    )


def config_names() -> list[str]:
    """The configurations that can be named: the YAML files at the top of conf/."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@contextmanager
def composer(config_name: str) -> Iterator[Composer]:
    """Yield a composer for conf/, leaving Hydra's process-wide state as it was.

    `GlobalHydra` is a singleton that refuses a second initialisation, and a job started by
    `hydra.main` already holds it: it is put aside under a lock and given back.
    """
    with _LOCK:
        singleton = GlobalHydra.instance()
        outer = singleton.hydra
        singleton.clear()
        try:
            with initialize_config_dir(str(FOLDER), version_base=VERSION_BASE):
                yield Composer(config_name, GlobalHydra.instance().config_loader())
        finally:
            GlobalHydra.instance().hydra = outer

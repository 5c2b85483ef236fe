"""The algorithm of a run, whichever it is. Light: imports neither torch nor distributed."""

from typing import Annotated

from pydantic import Field

from engine.config import DownpourConfig, SingleConfig, SynchronousConfig
from engine.sandblaster.config import SandblasterConfig

AlgorithmConfig = Annotated[
    DownpourConfig | SandblasterConfig | SingleConfig | SynchronousConfig,
    Field(discriminator="name"),
]

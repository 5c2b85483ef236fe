"""Kills code between any two of its bytecode instructions, as a signal would."""

import dis
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from engine import applied_pushes, rules, shard, state

_RULES = {str(path) for path in Path(rules.__file__).parent.glob("*.py")}
_FILES = {applied_pushes.__file__, shard.__file__, state.__file__} | _RULES
#: Whatever else an instruction does, it does to local variables, which die with the process.
_VISIBLE = {dis.opmap[name] for name in ("CALL", "CALL_FUNCTION_EX", "STORE_SUBSCR", "STORE_ATTR")}


class Killed(BaseException):
    """The process is dead: nothing in the code under test may catch this."""


class Countdown:
    """Raises Killed before the instruction that it has counted down to."""

    def __init__(self, remaining: int) -> None:
        self.remaining = remaining

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "call":
            if frame.f_code.co_filename not in _FILES:
                return None
            frame.f_trace_opcodes = True
            return self
        if event == "opcode" and frame.f_code.co_code[frame.f_lasti] in _VISIBLE:
            if not self.remaining:
                raise Killed
            self.remaining -= 1
        return self


def dies_at(point: int, work: Callable[[], Any]) -> bool:
    """Do `work` up to its `point`-th store or call; False when it was done before that."""
    before = sys.gettrace()
    sys.settrace(Countdown(point))
    try:
        work()
    except Killed:
        return True
    finally:
        sys.settrace(before)
    return False

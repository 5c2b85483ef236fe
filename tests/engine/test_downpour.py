"""The order of a replica's instructions, as Algorithm 1.1 prints it."""

import itertools
from collections.abc import Sequence

import pytest

from engine.config import DownpourConfig
from engine.downpour import (
    Answer,
    Compute,
    Fetch,
    Idle,
    Instruction,
    LeasedMinibatch,
    StartPush,
    Take,
    downpour,
)
from engine.ledger import Progress


def minibatch(number: int) -> LeasedMinibatch:
    return LeasedMinibatch(
        f"payload {number}", 2, Progress(1, 2 * number), scale=1 / number, seed=0
    )


def instructions(config: DownpourConfig, answers: Sequence[Answer]) -> list[Instruction]:
    """All but the Takes, which get `answers` one by one and None after the last."""
    program = downpour(config)
    instruction, given, carried_out = next(program), iter(answers), []
    while True:
        answer = None
        if isinstance(instruction, Take):
            answer = next(given, None)
        else:
            carried_out.append(instruction)
        try:
            instruction = program.send(answer)
        except StopIteration:
            return carried_out


def letters(config: DownpourConfig, answers: Sequence[Answer]) -> str:
    """F, C and P for fetch, compute and push; c for a compute that adds to what is there.

    A fetch that travels with a push counts after it, so a whole run may end with one.
    """
    text = ""
    for instruction in instructions(config, answers):
        match instruction:
            case Fetch():
                text += "F"
            case Compute():
                text += "C" if instruction.first else "c"
            case StartPush():
                text += "PF" if instruction.then_fetch else "P"
    return text


@pytest.mark.parametrize(
    ("n_fetch", "n_push", "expected"),
    [
        (1, 1, "FCP FCP FCP FCP FCP FCP FCP F"),
        (2, 1, "FCP CP FCP CP FCP CP FCP"),
        (1, 2, "FCP FC FcP FC FcP FC FcP F"),  # the first push carries one gradient
        (3, 2, "FCP C cP FC cP C FcP"),
        (2, 3, "FCP C Fc cP FC c FcP"),
        (9, 9, "FCP C c c c c c"),
    ],
)
def test_seven_steps_are_those_of_the_printed_algorithm(n_fetch, n_push, expected):
    config = DownpourConfig(n_fetch=n_fetch, n_push=n_push)
    batches = [minibatch(i) for i in range(1, 8)]
    assert letters(config, batches) == expected.replace(" ", "")


@pytest.mark.parametrize(("n_fetch", "n_push"), [*itertools.product([1, 2, 3, 5], repeat=2)])
def test_fetches_and_pushes_happen_at_the_multiples_of_their_intervals(n_fetch, n_push):
    config = DownpourConfig(n_fetch=n_fetch, n_push=n_push)
    step, seen = -1, {"F": set(), "P": set()}
    for letter in letters(config, [minibatch(i) for i in range(1, 31)]):
        if letter in "Cc":
            step += 1
        else:  # a fetch comes before the step's compute, a push after it
            seen[letter].add(step + (letter == "F"))
    seen["F"].discard(30)  # for a step that never came
    assert seen == {"F": set(range(0, 30, n_fetch)), "P": set(range(0, 30, n_push))}


def test_a_push_carries_the_progress_and_scale_of_its_last_minibatch():
    pushes = [
        instruction
        for instruction in instructions(
            DownpourConfig(n_push=2), [minibatch(i) for i in range(1, 6)]
        )
        if isinstance(instruction, StartPush)
    ]
    assert pushes == [StartPush(Progress(1, 2 * i), 1 / i, then_fetch=True) for i in (1, 3, 5)]


def test_what_has_accrued_is_pushed_when_there_is_nothing_to_do():
    batches = [minibatch(i) for i in range(1, 4)]
    assert letters(DownpourConfig(n_push=9), [*batches, Idle()]) == "FCPFCFcP"


def test_an_idle_replica_pushes_once_and_only_what_it_has():
    config = DownpourConfig(n_push=2)
    assert letters(config, [Idle(), Idle()]) == ""
    assert letters(config, [minibatch(1), Idle(), Idle()]) == "FCPF"
    assert letters(config, [minibatch(1), minibatch(2), Idle(), Idle()]) == "FCPFCP"


def test_idling_does_not_move_the_steps():
    config = DownpourConfig(n_fetch=3, n_push=3)
    idle = [minibatch(1), Idle(), minibatch(2), Idle(), minibatch(3), minibatch(4)]
    assert letters(config, idle) == "FCP" + "CP" + "C" + "FcP"


def test_a_replica_without_any_sample_ends_at_once():
    assert letters(DownpourConfig(), []) == ""


def test_after_idling_the_parameters_are_fetched_again():
    answers = [minibatch(1), Idle(), minibatch(2)]
    assert letters(DownpourConfig(), answers) == "FCPF" + "FCPF"


def test_an_overlapped_fetch_never_travels_with_a_push():
    config = DownpourConfig(overlap_fetch=True)
    assert letters(config, [minibatch(1), minibatch(2)]) == "FCPFCP"

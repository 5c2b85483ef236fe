"""Names that come twice are told, whatever else is in the set."""

import random
import tracemalloc

from data.sources.name_set import NameSet


def test_a_name_is_new_once():
    rng = random.Random(0)
    names = [f"class/{rng.randrange(5000)}.jpg" for _ in range(20_000)]
    found, expected = NameSet(), set()
    for name in names:
        assert found.add(name) == (name not in expected)
        expected.add(name)


def test_a_name_takes_few_bytes():
    tracemalloc.start()
    try:
        names = NameSet()
        for number in range(100_000):
            assert names.add(f"train/class/{number}.jpg")
        assert tracemalloc.get_traced_memory()[1] < 50 * 100_000
    finally:
        tracemalloc.stop()

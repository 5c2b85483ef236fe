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


def test_names_are_added_up_to_one_that_is_there():
    rng = random.Random(1)
    found, expected = NameSet(), set()
    for _ in range(500):
        names = [f"class/{rng.randrange(10**5)}.jpg" for _ in range(rng.randrange(200))]
        num_new = 0
        while num_new < len(names) and names[num_new] not in expected:
            expected.add(names[num_new])
            num_new += 1
        assert found.add_until_known(names) == num_new
    assert not any(found.add(name) for name in expected)


def test_a_name_takes_few_bytes():
    tracemalloc.start()
    try:
        names = NameSet()
        for number in range(100_000):
            assert names.add(f"train/class/{number}.jpg")
        assert tracemalloc.get_traced_memory()[1] < 50 * 100_000
    finally:
        tracemalloc.stop()

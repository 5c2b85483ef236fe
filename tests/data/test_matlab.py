"""Structs of MAT-files are read as scipy wrote them, and damage is an error with a name."""

import contextlib
import io
import random
import struct

import numpy as np
import pytest
import scipy.io

from data.sources.matlab import MatError, read_structs
from tests.data.miniature.archives import meta

IDS = {f"n{i:08d}": 1000 - i for i in range(1000)}
COUNTS = {wnid: 732 + place for place, wnid in enumerate(IDS)}


@pytest.mark.parametrize("compressed", [True, False])
def test_meta_mat_is_read_as_scipy_reads_it(compressed):
    data = meta(IDS, COUNTS, compressed)
    theirs = scipy.io.loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
    ours = read_structs(data, "synsets")
    assert len(ours) == len(theirs) == 1860
    for row, other in zip(ours, theirs, strict=True):
        for field in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children"):
            assert row[field] == other[field]


@pytest.mark.parametrize(("order", "mark"), [("<", b"\x00\x01IM"), (">", b"\x01\x00MI")])
def test_numbers_in_few_bytes_and_both_byte_orders_are_read(order, mark):
    """As MATLAB writes them: small integers of a double array take one or two bytes each."""

    def element(kind, data):
        return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)

    def array(array_class, *parts):
        flags = element(6, struct.pack(f"{order}II", array_class, 0))
        shape = element(5, struct.pack(f"{order}ii", 1, 1))
        return element(14, flags + shape + b"".join(parts))

    no_name = element(1, b"")
    short = struct.pack(f"{order}I", 2 << 16 | 4) + struct.pack(f"{order}H", 490) + bytes(2)
    text = "né".encode("utf-16-le" if order == "<" else "utf-16-be")
    names = b"".join(name.ljust(8, b"\0") for name in (b"short", b"byte", b"name"))
    data = b"MATLAB".ljust(124) + mark
    data += array(
        2,
        element(1, b"synsets"),
        element(5, struct.pack(f"{order}i", 8)),
        element(1, names),
        array(6, no_name, short),
        array(6, no_name, element(2, b"\xfe")),
        array(4, no_name, element(17, text)),
    )
    assert read_structs(data, "synsets") == [{"short": 490.0, "byte": 254.0, "name": "né"}]


def test_another_variable_is_not_taken_for_it():
    with io.BytesIO() as file:
        scipy.io.savemat(file, {"other": np.zeros(3)})
        with pytest.raises(MatError, match="no variable 'synsets'"):
            read_structs(file.getvalue(), "synsets")


@pytest.mark.parametrize("compressed", [True, False])
def test_damage_is_told_or_harmless(compressed):
    ids = dict(list(IDS.items())[:3])
    data = meta(ids, COUNTS, compressed)
    rng = random.Random(0)
    for _ in range(300):
        broken = bytearray(data[: rng.randrange(len(data))])
        if broken:
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        with contextlib.suppress(MatError):
            read_structs(bytes(broken), "synsets")

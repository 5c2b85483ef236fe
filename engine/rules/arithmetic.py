"""Arithmetic that rules need beyond Python's own."""

from fractions import Fraction


def fma(x: float, y: float, z: float) -> float:
    """x * y + z, rounded once. The processor's own instruction in compiled formulas.

    torch's kernels use it. Formulas say where, so that no compiler decides what their bits are: the
    same block comes out the same whether it is updated by a push or by a successor that repeats it.
    """
    return float(Fraction(x) * Fraction(y) + Fraction(z))

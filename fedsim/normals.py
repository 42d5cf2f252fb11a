"""The inverse of the standard normal distribution function: uniform draws become normal ones.

Interpreted, the standard library's ``NormalDist.inv_cdf`` is called; compiled (`fedsim.compiling`), the same algorithm as it
is written here works on bare numbers. Both take the same steps in the same order, so they give the same bits, unless a C
compiler had the library round a product and a sum at once. That is tried when the module is imported; where they differ, the
library's is used in both.

References:
    Wichura, Algorithm AS 241: the percentage points of the normal distribution, Applied Statistics 37 (1988), PPND16.
"""

from __future__ import annotations

import math
from itertools import repeat
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable


def ppnd16(p: float) -> float:
    """The point below which a standard normal variable lies with probability p in (0, 1); PPND16 as it is written here."""
    q = p - 0.5
    if -0.425 <= q <= 0.425:
        r = 0.180625 - q * q
        above = (2509.0809287301226727 * r + 33430.575583588128105) * r + 67265.770927008700853
        above = ((above * r + 45921.953931549871457) * r + 13731.693765509461125) * r + 1971.5909503065514427
        above = ((above * r + 133.14166789178437745) * r + 3.387132872796366608) * q
        below = (5226.495278852854561 * r + 28729.085735721942674) * r + 39307.89580009271061
        below = ((below * r + 21213.794301586595867) * r + 5394.1960214247511077) * r + 687.1870074920579083
        below = (below * r + 42.313330701600911252) * r + 1.0
        return above / below
    r = p if q <= 0.0 else 1.0 - p
    r = math.sqrt(-math.log(r))
    if r <= 5.0:
        r -= 1.6
        above = (7.7454501427834140764e-4 * r + 0.0227238449892691845833) * r + 0.24178072517745061177
        above = (
            (above * r + 1.27045825245236838258) * r + 3.64784832476320460504
        ) * r + 5.7694972214606914055
        above = (above * r + 4.6303378461565452959) * r + 1.42343711074968357734
        below = (1.05075007164441684324e-9 * r + 5.475938084995344946e-4) * r + 0.0151986665636164571966
        below = (
            (below * r + 0.14810397642748007459) * r + 0.68976733498510000455
        ) * r + 1.6763848301838038494
        below = (below * r + 2.05319162663775882187) * r + 1.0
    else:
        r -= 5.0
        above = (2.01033439929228813265e-7 * r + 2.71155556874348757815e-5) * r + 0.0012426609473880784386
        above = (
            (above * r + 0.026532189526576123093) * r + 0.29656057182850489123
        ) * r + 1.7848265399172913358
        above = (above * r + 5.4637849111641143699) * r + 6.6579046435011037772
        below = (2.04426310338993978564e-15 * r + 1.4215117583164458887e-7) * r + 1.8463183175100546818e-5
        below = (
            (below * r + 7.868691311456132591e-4) * r + 0.0148753612908506148525
        ) * r + 0.13692988092273580531
        below = (below * r + 0.59983220655588793769) * r + 1.0
    return -(above / below) if q < 0.0 else above / below


def _library_s() -> Callable[[float, float, float], float]:
    """The standard library's ``NormalDist(mu, sigma).inv_cdf(p)`` as one call of (p, mu, sigma), in C where it has that."""
    try:
        from statistics import _normal_dist_inv_cdf  # type: ignore[attr-defined]
    except ImportError:  # another Python than CPython 3.11 to 3.13
        return lambda p, mu, sigma: NormalDist(mu, sigma).inv_cdf(p)
    return _normal_dist_inv_cdf  # type: ignore[no-any-return]


_inv_cdf: Final = _library_s()
_TRIED: Final = [(2 * place + 1) / 512 for place in range(256)] + [2.0**-power for power in range(10, 54)]
_IS_OURS: Final[bool] = not __file__.endswith(".py") and all(
    ppnd16(p) == _inv_cdf(p, 0.0, 1.0) for p in _TRIED
)


def standard_normal(p: float) -> float:
    """The point below which a standard normal variable lies with probability p in (0, 1)."""
    return ppnd16(p) if _IS_OURS else _inv_cdf(p, 0.0, 1.0)


def standard_normals(probabilities: list[float]) -> list[float]:
    """`standard_normal` of each."""
    if _IS_OURS:
        return [ppnd16(p) for p in probabilities]
    return list(map(_inv_cdf, probabilities, repeat(0.0), repeat(1.0)))

"""What tells up to twenty methods apart on one figure: styles, short names, and labels that do not overlap."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from fedsim.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, new_figure

# Yellow is left out: it cannot be seen on white paper.
_COLOURS = (BLUE, VERMILLION, GREEN, BLACK, ORANGE, PURPLE, SKY)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_LINES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "solid",
    (0, (4.0, 1.5)),
    (0, (1.0, 1.2)),
    (0, (5.0, 1.2, 1.0, 1.2)),
)
MOST_LETTERS = 26


@dataclass(frozen=True, slots=True)
class MethodStyle:
    """Colour, marker and line of one method, the same in every figure."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]


def method_style(index: int) -> MethodStyle:
    """The style of the method at this place in the comparison.

    Seven colours and nine markers go round side by side, so 63 methods differ in at least one of them; lines change with
    every round of the colours.
    """
    return MethodStyle(
        _COLOURS[index % len(_COLOURS)],
        _MARKERS[index % len(_MARKERS)],
        _LINES[(index // len(_COLOURS)) % len(_LINES)],
    )


def short_names(names: Sequence[str], most: int = MOST_LETTERS) -> dict[str, str]:
    """Names of at most so many letters, each still its own: the middle is left out, then a number tells twins apart.

    >>> short_names(["fedgrpo", "fedpetuning-product-averaging-rank-32"], 20)
    {'fedgrpo': 'fedgrpo', 'fedpetuning-product-averaging-rank-32': 'fedpetuning…-rank-32'}
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for place, name in enumerate(names, 1):
        short = _shortened(name, most)
        if short in taken:
            mark = f" #{place}"
            short = _shortened(name, most - len(mark)) + mark
        taken.add(short)
        found[name] = short
    return found


def _shortened(name: str, most: int) -> str:
    if len(name) <= most:
        return name
    tail = (most - 1) * 2 // 5 + 1
    return f"{name[: most - 1 - tail]}…{name[-tail:]}"


def shown_name(name: str, most: int = 34) -> str:
    r"""A user's name as one short line; matplotlib leaves out of legends what begins with an underscore.

    >>> shown_name("a\tname\nof two lines"), shown_name("_hidden") == "\u200a_hidden"
    ('a name of two lines', True)
    """
    line = " ".join("".join(" " if ord(one) < 32 or one == "\x7f" else one for one in name).split())
    line = line if len(line) <= most else line[: most - 1] + "…"
    return f"\u200a{line}" if line.startswith("_") else line


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near as possible to the wanted ones, in their order, at least ``gap`` apart, inside [low, high].

    Least squares under the order: with ``z_i = y_i - i gap`` (in sorted order) it is the isotonic regression of the
    shifted wishes, found by pooling neighbours; where all do not fit, they are spread evenly.
    """
    if not wanted:
        return []
    order = sorted(range(len(wanted)), key=lambda place: (wanted[place], place))
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    pools: list[tuple[float, int]] = []
    for rank, place in enumerate(order):
        pools.append((wanted[place] - rank * gap, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (second, few), (first, many) = pools.pop(), pools.pop()
            pools.append(((first * many + second * few) / (many + few), many + few))
    shifted = [mean for mean, count in pools for _ in range(count)]
    most = high - (len(wanted) - 1) * gap
    places = [0.0] * len(wanted)
    for rank, place in enumerate(order):
        places[place] = min(max(shifted[rank], low), most) + rank * gap
    return places


@dataclass(frozen=True, slots=True)
class Point:
    """A point to be labelled, in data coordinates, with its whiskers' ends (for what a label must not cover)."""

    x: float
    y: float
    label: str
    colour: str
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]


def label_points(
    figure: Figure,
    axes: Axes,
    points: Sequence[Point],
    lines: Sequence[tuple[float, float, float, float]] = (),
) -> None:
    """Write each label beside its point: of many places around it, the one that covers least, with a line if it is far.

    ``lines`` are level or upright stretches (x, y to x, y, data coordinates) that labels should not cover either.
    The layout must be final (`settle` first): places are compared in pixels.
    """
    inside = axes.get_window_extent()
    scale = figure.dpi / 72
    at = [axes.transData.transform((point.x, point.y)) for point in points]
    taken = [Bbox.from_bounds(x - 3 * scale, y - 3 * scale, 6 * scale, 6 * scale) for x, y in at]
    for point in points:
        (left, y), (right, _) = (axes.transData.transform((end, point.y)) for end in point.x_ends)
        (x, bottom), (_, top) = (axes.transData.transform((point.x, end)) for end in point.y_ends)
        taken.append(Bbox.from_extents(left, y - scale, right, y + scale))
        taken.append(Bbox.from_extents(x - scale, bottom, x + scale, top))
    for x0, y0, x1, y1 in lines:
        (left, bottom), (right, top) = axes.transData.transform([(x0, y0), (x1, y1)])
        taken.append(Bbox.from_extents(left - scale, bottom - scale, right + scale, top + scale))
    corners = [_corners(box) for box in taken]
    for point, (x, y) in zip(points, at, strict=True):
        text = axes.annotate(
            point.label, (point.x, point.y), xytext=(0, 0), textcoords="offset points", fontsize=6.5, color=BLACK,
            annotation_clip=False, zorder=6,
        )  # fmt: skip
        text.set_in_layout(False)
        extent = text.get_window_extent()
        best = min(
            _places(extent.width / scale, extent.height / scale),
            key=lambda move: (
                _cost(_moved(x, y, move, extent, scale), corners, inside)
                + 2.5 * scale**2 * _far(move, extent, scale)
            ),
        )
        text.set_position(best)
        box = _moved(x, y, best, extent, scale)
        corners.append(_corners(box))
        if _far(best, extent, scale) > 8:
            near = (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1))
            axes.annotate(
                "", (point.x, point.y), xytext=_data(axes, near), zorder=2,
                arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
            ).set_in_layout(False)  # fmt: skip


def _data(axes: Axes, pixel: tuple[float, float]) -> tuple[float, float]:
    x, y = axes.transData.inverted().transform(pixel)
    return float(x), float(y)


def _places(width: float, height: float) -> list[tuple[float, float]]:
    """Offsets (points) of a text's lower left corner, nearest first."""
    found = []
    for away in (5.0, 8.0, 14.0, 22.0, 32.0, 44.0, 58.0, 74.0):
        for up in (0.0, 0.5, 1.0, -0.5, -1.0):
            y = up * away - height / 2 if abs(up) < 1 else (away if up > 0 else -away - height)
            found += [(away, y), (-away - width, y)]
        for lift in (away, -away - height):
            found += [(-width / 2, lift), (0.0, lift), (-width, lift)]
    return found


def _moved(x: float, y: float, move: tuple[float, float], extent: Bbox, scale: float) -> Bbox:
    return Bbox.from_bounds(x + move[0] * scale, y + move[1] * scale, extent.width, extent.height)


def _far(move: tuple[float, float], extent: Bbox, scale: float) -> float:
    """Distance (points) from the point to the nearest edge of its label."""
    across = max(move[0], -move[0] - extent.width / scale, 0.0)
    along = max(move[1], -move[1] - extent.height / scale, 0.0)
    return math.hypot(across, along)


def _corners(box: Bbox) -> list[float]:
    return [float(end) for end in box.extents]  # plain numbers: they are compared some hundred thousand times


def _cost(box: Bbox, taken: Sequence[Sequence[float]], inside: Bbox) -> float:
    """Covered area (pixels), and a great deal for leaving the axes; ``taken`` are left, bottom, right and top."""
    covered = 0.0
    left, bottom, right, top = _corners(box)
    for x0, y0, x1, y1 in taken:
        width = min(right, x1) - max(left, x0)
        height = min(top, y1) - max(bottom, y0)
        if width > 0 and height > 0:
            covered += 60 + 4 * width * height
    outside = max(0.0, inside.x0 - box.x0, box.x1 - inside.x1) + max(
        0.0, inside.y0 - box.y0, box.y1 - inside.y1
    )
    return float(covered + 1000 * outside)


def figure_with_footer(body_in: float, sentences: Sequence[str], letters: int = 158) -> Figure:
    """An empty figure of this height plus what the small print under it needs; draw within ``styled()``."""
    lines = [line for sentence in sentences for line in textwrap.wrap(sentence, letters)]
    figure = new_figure(body_in + 0.12 * len(lines))
    if lines:
        figure.supxlabel("\n".join(lines), x=0.005, ha="left", fontsize=6, color="#444444")
    return figure

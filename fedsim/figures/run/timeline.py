"""What each device did when: off, idle, downloading, waiting, computing, uploading."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fedsim.config.units import format_seconds
from fedsim.figures.run.devices import device_classes
from fedsim.figures.style import GREEN, ORANGE, PALE, SKY, VERMILLION, YELLOW, new_figure, styled, time_scale
from fedsim.records.rows import SERVER_ID
from fedsim.records.run import Run

Interval = tuple[float, float]

MAX_DEVICES = 16
# More computations per device than this in one picture are a smear.
_MAX_COMPUTES = 14
_MAX_PARTS = 2**20
_MAX_REQUESTS = 20_000
_OFF = "#7F7F7F"

# Lanes within a device's row, from the top: what it receives, what it does, what it sends.
_LANES = (
    ("down", "download", SKY, 0.09),
    ("wait", "waiting (on the way, queue)", YELLOW, 0.30),
    ("compute", "compute", GREEN, 0.51),
    ("up", "upload", ORANGE, 0.72),
)


@dataclass(slots=True)
class DeviceActivity:
    """One device's intervals in virtual seconds, by lane, and the instants at which a request was lost."""

    client_id: int
    device_class: str
    off: list[Interval] = field(default_factory=list)
    lanes: dict[str, list[Interval]] = field(default_factory=lambda: defaultdict(list))
    lost_at_s: list[float] = field(default_factory=list)
    sent_at_s: list[float] = field(default_factory=list)


def device_timeline(run: Run) -> Figure | None:
    """One row per device with its class, in a window of virtual time short enough to be read.

    Waiting is from the end of a download to the start of its computation: the delay on the way and the
    queue. At most sixteen devices are shown, of every class, the busiest first. Of a run of more than 20,000 requests the
    window lies in the stretch in which the first 20,000 ended.
    """
    devices = activities(run)
    if not any(device.sent_at_s for device in devices):
        return None
    shown = _choose(devices)
    start_s, end_s = window(shown, min(_span_s(run), _looked_at_s(run)))
    with styled():
        figure = new_figure(1.0 + 0.36 * len(shown))
        axes = figure.subplots()
        unit_s, unit = time_scale(end_s - start_s)
        for row, device in enumerate(shown):
            _draw_device(axes, row, device, (start_s, end_s), unit_s)
        axes.set_xlim(start_s / unit_s, end_s / unit_s)
        axes.set_ylim(len(shown), 0)
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.set_yticks([row + 0.5 for row in range(len(shown))], [_label(device) for device in shown])
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"virtual time ({unit})")
        axes.set_title(_title(run, devices, shown, (start_s, end_s)), loc="left")
        _legend(figure)
    return figure


def activities(run: Run) -> list[DeviceActivity]:
    """Every device's activity, the server first: over the whole run, or over the first stretch of a long one."""
    outcomes = run.scan("outcomes").head(_MAX_REQUESTS).collect().to_dicts()
    devices = {
        client_id: DeviceActivity(client_id, device_class)
        for client_id, device_class in sorted(({SERVER_ID: "server"} | device_classes(run)).items())
    }
    arrived_at_s: dict[int, float] = {}
    purpose_of = {row["request_id"]: row["purpose"] for row in outcomes}
    looked_at = pl.col("start_at_s") <= _looked_at_s(run)
    for row in run.scan("transfers").filter(looked_at, pl.col("purpose") != "cancel").collect().to_dicts():
        devices[row["client_id"]].lanes[row["direction"]].append((row["start_at_s"], row["end_at_s"]))
        if row["direction"] == "down" and row["purpose"] == purpose_of.get(row["request_id"]):
            arrived_at_s[row["request_id"]] = row["end_at_s"]
    computing_at_s: dict[int, float] = {}
    for row in run.scan("computes").filter(looked_at).collect().to_dicts():
        if row["client_id"] in devices:
            devices[row["client_id"]].lanes["compute"].append((row["start_at_s"], row["end_at_s"]))
        if row["client_id"] != SERVER_ID:
            computing_at_s.setdefault(row["request_id"], row["start_at_s"])  # it may have slept in between
    for row in outcomes:
        device = devices[row["client_id"]]
        device.sent_at_s.append(row["sent_at_s"])
        if row["status"] in ("dropped", "cut", "failed"):
            device.lost_at_s.append(row["ended_at_s"])
        if row["phase"] != "down" and row["request_id"] in arrived_at_s:
            until_s = computing_at_s.get(row["request_id"], row["ended_at_s"])
            device.lanes["wait"].append((arrived_at_s[row["request_id"]], until_s))
    _add_absences(run, devices)
    return list(devices.values())


def _add_absences(run: Run, devices: Mapping[int, DeviceActivity]) -> None:
    looked_at_s = _looked_at_s(run)
    rows = run.scan("presence").filter(pl.col("start_at_s") <= looked_at_s).collect()
    if rows.is_empty():  # a run without presence records does not say who was away
        return
    present: dict[int, list[Interval]] = defaultdict(list)
    for row in rows.to_dicts():
        present[row["client_id"]].append((row["start_at_s"], row["end_at_s"]))
    # Presence is known up to the end of the run; while its last requests are drained, who was away stays away.
    until_s = min(looked_at_s, max(end_s for intervals in present.values() for _, end_s in intervals))
    drained_s = min(looked_at_s, max(until_s, _span_s(run)))
    for client_id, device in devices.items():
        if client_id != SERVER_ID:
            device.off = gaps(present[client_id], until_s)
            if device.off and device.off[-1][1] == until_s:
                device.off[-1] = (device.off[-1][0], drained_s)


def gaps(intervals: Sequence[Interval], until_s: float) -> list[Interval]:
    """What the intervals leave uncovered of [0, ``until_s``]."""
    found = []
    covered_s = 0.0
    for start_s, end_s in sorted(intervals):
        if start_s > covered_s:
            found.append((covered_s, start_s))
        covered_s = max(covered_s, end_s)
    if covered_s < until_s:
        found.append((covered_s, until_s))
    return found


def window(devices: Sequence[DeviceActivity], span_s: float) -> Interval:
    """The stretch of the run that is drawn: all of it, or the most eventful part that can still be read.

    The run is halved again and again until no part holds more than a handful of computations per device (they
    follow one another, so a short enough part has few); of these parts the one is taken in which most
    devices come, go or lose a request (the first of equals).
    """
    last_s = max(
        (end_s for device in devices for lane in device.lanes.values() for _, end_s in lane), default=0.0
    )
    if (
        0 < last_s < span_s / 2
    ):  # these devices were done early: the rest of the run would be an empty picture
        span_s = last_s
    starts_s = [[start_s for start_s, _ in device.lanes.get("compute", [])] for device in devices]
    active = [instants for instants in starts_s if instants]
    num_parts = 1
    while num_parts < _MAX_PARTS:
        counts = Counter(part for instants in active for part in _parts(instants, span_s, num_parts))
        if max(counts.values(), default=0) <= _MAX_COMPUTES * len(active):
            break
        num_parts *= 2
    events: Counter[int] = Counter()
    for device in devices:
        edges_s = [at_s for interval in device.off for at_s in interval if 0 < at_s < span_s]
        events.update(_parts([*device.lost_at_s, *edges_s], span_s, num_parts))
    worked = {part for instants in active for part in _parts(instants, span_s, num_parts)}
    part = min(worked, key=lambda part: (-events[part], part), default=0)
    return part * span_s / num_parts, (part + 1) * span_s / num_parts


def _parts(instants_s: Sequence[float], span_s: float, num_parts: int) -> list[int]:
    return [min(int(at_s / span_s * num_parts), num_parts - 1) for at_s in instants_s] if span_s > 0 else []


def _span_s(run: Run) -> float:
    ends = [
        run.scan(name).select(pl.col(column).max()).collect().item()
        for name, column in (("outcomes", "ended_at_s"), ("presence", "end_at_s"))
    ]
    return max((end_s for end_s in ends if end_s is not None), default=1.0)


def _looked_at_s(run: Run) -> float:
    """Up to when the run is looked at: to its end, or to the last outcome of as many requests as a picture can do with."""
    ended_at_s = run.scan("outcomes").select("ended_at_s").slice(_MAX_REQUESTS - 1, 2).collect()["ended_at_s"]
    return float(ended_at_s[0]) if len(ended_at_s) == 2 else math.inf


def _choose(devices: Sequence[DeviceActivity]) -> list[DeviceActivity]:
    """The server, and up to sixteen clients: the busiest of each class in turn; in the order of their ids."""
    clients = [device for device in devices if device.client_id != SERVER_ID]
    by_class: dict[str, list[DeviceActivity]] = defaultdict(list)
    for device in sorted(clients, key=lambda device: (-len(device.sent_at_s), device.client_id)):
        by_class[device.device_class].append(device)
    rank = {
        device.client_id: (place, name) for name, row in by_class.items() for place, device in enumerate(row)
    }
    chosen = sorted(clients, key=lambda device: rank[device.client_id])[:MAX_DEVICES]
    server = [device for device in devices if device.client_id == SERVER_ID and device.lanes]
    return server + sorted(chosen, key=lambda device: device.client_id)


def _draw_device(axes: Axes, row: int, device: DeviceActivity, shown: Interval, unit_s: float) -> None:
    axes.axhspan(row + 0.04, row + 0.96, facecolor=PALE, alpha=0.55, zorder=0, linewidth=0)
    off = _clip(device.off, shown, unit_s)
    axes.broken_barh(off, (row + 0.04, 0.92), facecolor=_OFF, zorder=1, linewidth=0)
    # What is shorter than a hairline is drawn as one; a white edge parts what is longer from its neighbours.
    hairline = (shown[1] - shown[0]) / unit_s / 800
    for lane, _, colour, offset in _LANES:
        pieces = _clip(device.lanes.get(lane, []), shown, unit_s)
        place = (row + offset, 0.19)
        wide = [piece for piece in pieces if piece[1] > 6 * hairline]
        axes.broken_barh(wide, place, facecolor=colour, edgecolor="white", linewidth=0.25, zorder=3)
        thin = [(start, max(width, hairline)) for start, width in pieces if width <= 6 * hairline]
        axes.broken_barh(thin, place, facecolor=colour, linewidth=0, zorder=4)
    lost = [at_s / unit_s for at_s in device.lost_at_s if shown[0] <= at_s <= shown[1]]
    axes.plot(
        lost,
        [row + 0.5] * len(lost),
        "x",
        color=VERMILLION,
        markersize=5,
        markeredgewidth=1.4,
        zorder=5,
        clip_on=False,
    )


def _clip(intervals: Sequence[Interval], shown: Interval, unit_s: float) -> list[Interval]:
    """Intervals as (start, width) in axis units, only what lies in the window."""
    clipped = [(max(start_s, shown[0]), min(end_s, shown[1])) for start_s, end_s in intervals]
    return [(start_s / unit_s, (end_s - start_s) / unit_s) for start_s, end_s in clipped if end_s > start_s]


def _label(device: DeviceActivity) -> str:
    return "server" if device.client_id == SERVER_ID else f"{device.client_id}  {device.device_class}"


def _title(
    run: Run, devices: Sequence[DeviceActivity], shown: Sequence[DeviceActivity], drawn: Interval
) -> str:
    num_clients = sum(device.client_id != SERVER_ID for device in devices)
    num_shown = sum(device.client_id != SERVER_ID for device in shown)
    which = f"{num_shown} of {num_clients} devices" if num_shown < num_clients else f"{num_clients} devices"
    took_s = float(run.summary["virtual_s"])
    if drawn[0] == 0 and drawn[1] >= took_s:
        after = ", and requests that were still under way" if drawn[1] > took_s else ""
        return f"{which}, the whole run of {format_seconds(took_s)}{after}"
    return f"{which}, {format_seconds(drawn[1] - drawn[0])} of the run's {format_seconds(took_s)}"


def _legend(figure: Figure) -> None:
    handles: list[Patch | Line2D] = [Patch(facecolor=colour, label=label) for _, label, colour, _ in _LANES]
    handles += [
        Patch(facecolor=PALE, label="idle"),
        Patch(facecolor=_OFF, label="off"),
        Line2D([], [], color=VERMILLION, marker="x", linestyle="", markeredgewidth=1.4, label="request lost"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=7, handlelength=1.0, columnspacing=1.2)

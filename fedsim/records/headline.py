"""A finished run in a few lines for people: what ``fedsim run`` prints last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedsim.config.units import format_bytes, format_seconds


def headline(summary: Mapping[str, Any]) -> list[str]:
    """A finished run in a few lines for people."""
    accuracy, sizes, requests = summary["accuracy"], summary["bytes"], summary["requests"]
    lines = []
    for name, label in (("greedy", "greedy accuracy"), ("pass_at_1", "pass@1"), ("pass_at_8", "pass@8")):
        before, after = accuracy[name]["initial"], accuracy[name]["final"]
        if before is not None and after is not None:
            lines.append(
                f"{label}: {before:.3f} -> {after:.3f} on {accuracy['num_questions']} test questions"
            )
    up, down = sizes["wire"]["uplink"], sizes["wire"]["downlink"]
    under_way = summary["requests_under_way"]
    lost = sum(count for status, count in requests.items() if status not in ("ok", "total")) - under_way
    privacy = summary.get("privacy")
    return [
        *lines,
        f"bytes on the wire: {format_bytes(up)} up, {format_bytes(down)} down "
        f"(paper account: {format_bytes(sizes['paper']['uplink'])} up)",
        f"requests: {requests['ok']} ok, {lost} without a usable reply"
        + (f", {under_way} still under way when the run stopped" if under_way else ""),
        f"{summary['updates']} updates in {format_seconds(summary['virtual_s'])} of virtual time and "
        f"{format_seconds(summary['wall_s'])} of real time (stopped by: {summary['stopped_by']})",
        *([privacy["in_words"]] if privacy else []),
    ]

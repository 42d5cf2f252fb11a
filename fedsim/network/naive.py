"""The shared link again, from scratch at every change: slow, obvious, the measure of the fast one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


def max_min_rates(
    clients: Sequence[int], access_bytes_per_s: Mapping[int, float], capacity_bytes_per_s: float
) -> list[float]:
    """Max-min fair rates [F] of F flows by progressive filling.

    All flows' rates rise together; when a client's access link or the shared link is full, its flows stop
    there.

    Args:
        clients: [F] the client of each flow.
        access_bytes_per_s: access rate by client.
        capacity_bytes_per_s: the shared link's rate; may be infinite.
    """
    rates = [0.0] * len(clients)
    growing = set(range(len(clients)))
    access_left, shared_left = dict(access_bytes_per_s), capacity_bytes_per_s
    while growing:
        flows_of = {client: sum(clients[i] == client for i in growing) for client in set(clients)}
        shares = {client: access_left[client] / n for client, n in flows_of.items() if n}
        step = min(min(shares.values()), shared_left / len(growing))
        for i in growing:
            rates[i] += step
        for client, n in flows_of.items():
            access_left[client] -= n * step
        full = {client for client, share in shares.items() if share <= step}
        if shared_left / len(growing) <= step:
            break
        shared_left -= len(growing) * step
        growing = {i for i in growing if clients[i] not in full}
    return rates


@dataclass(slots=True)
class Arrival:
    """One flow of a scripted run: it starts at ``at_s`` and, if ``cut_at_s`` comes first, is cut there."""

    client_id: int
    at_s: float
    wire_bytes: float
    cut_at_s: float = math.inf


def simulate(
    arrivals: Sequence[Arrival], access_bytes_per_s: Mapping[int, float], capacity_bytes_per_s: float
) -> list[tuple[float, float]]:
    """Run scripted flows and return, for each, when it ended and the bytes it sent."""
    left = [arrival.wire_bytes for arrival in arrivals]
    ended: dict[int, tuple[float, float]] = {}
    now_s = 0.0
    while len(ended) < len(arrivals):
        running = [i for i, a in enumerate(arrivals) if i not in ended and a.at_s <= now_s]
        rates = max_min_rates(
            [arrivals[i].client_id for i in running], access_bytes_per_s, capacity_bytes_per_s
        )
        finish = [now_s + left[i] / rate for i, rate in zip(running, rates, strict=True)]
        coming = [a.at_s for i, a in enumerate(arrivals) if a.at_s > now_s and i not in ended]
        cuts = [arrivals[i].cut_at_s for i in running]
        next_s = min([*finish, *coming, *cuts])
        for i, rate, finish_s in zip(running, rates, finish, strict=True):
            left[i] -= rate * (next_s - now_s)
            if finish_s <= next_s + 1e-9:
                ended[i] = (next_s, arrivals[i].wire_bytes)
            elif arrivals[i].cut_at_s <= next_s:
                ended[i] = (next_s, arrivals[i].wire_bytes - left[i])
        now_s = next_s
    return [ended[i] for i in range(len(arrivals))]

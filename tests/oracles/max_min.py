"""The shared link and the tree again, from scratch at every change: slow, obvious, the measure of the fast ones."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
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


def max_min_rates_on(
    paths: Sequence[Sequence[Hashable]], bytes_per_s: Mapping[Hashable, float]
) -> list[float]:
    """Max-min fair rates [F] of F flows on any graph, each over the links of its path, by progressive filling."""
    rates = [0.0] * len(paths)
    growing = set(range(len(paths)))
    left = {link: bytes_per_s[link] for path in paths for link in path}
    while growing:
        flows_of = {link: sum(link in paths[i] for i in growing) for link in left}
        shares = {link: left[link] / n for link, n in flows_of.items() if n}
        step = min(shares.values())
        for i in growing:
            rates[i] += step
        for link in shares:
            left[link] -= flows_of[link] * step
        full = {link for link, share in shares.items() if share <= step}
        growing = {i for i in growing if full.isdisjoint(paths[i])}
    return rates


@dataclass(frozen=True, slots=True)
class Tree:
    """Edges by name with their rates and parents, and the edge that each client stands behind (None: the root)."""

    bytes_per_s: Mapping[str, float]
    parents: Mapping[str, str | None]
    homes: Mapping[int, str | None]

    def path(self, client_id: int) -> list[Hashable]:
        """The links of a client's flow: its access (its id), its edges (their names), and the root (None)."""
        path: list[Hashable] = [client_id]
        name = self.homes.get(client_id)
        while name is not None:
            path.append(name)
            name = self.parents[name]
        return [*path, None]


NO_EDGES = Tree({}, {}, {})


@dataclass(slots=True)
class RateChange:
    """From ``at_s`` on, the rate of a client's access, of an edge by name, or of the shared link (None) is another."""

    at_s: float
    client_id: int | str | None
    bytes_per_s: float


@dataclass(slots=True)
class Arrival:
    """One flow of a scripted run: it starts at ``at_s`` and, if ``cut_at_s`` comes first, is cut there."""

    client_id: int
    at_s: float
    wire_bytes: float
    cut_at_s: float = math.inf


def simulate(
    arrivals: Sequence[Arrival],
    access_bytes_per_s: Mapping[int, float],
    capacity_bytes_per_s: float,
    changes: Sequence[RateChange] = (),
    tree: Tree = NO_EDGES,
) -> list[tuple[float, float]]:
    """Run scripted flows and return, for each, when it ended (infinity: never) and the bytes it sent."""
    rate_of: dict[Hashable, float] = {None: capacity_bytes_per_s}
    for rates_of_links in (access_bytes_per_s, tree.bytes_per_s):
        rate_of.update({link: rate for link, rate in rates_of_links.items()})  # noqa: C416 - keys of two types
    left = [arrival.wire_bytes for arrival in arrivals]
    ended: dict[int, tuple[float, float]] = {}
    now_s = 0.0
    while len(ended) < len(arrivals):
        for change in changes:
            if change.at_s == now_s:
                rate_of[change.client_id] = change.bytes_per_s
        running = [i for i, a in enumerate(arrivals) if i not in ended and a.at_s <= now_s]
        if tree is NO_EDGES:
            access = {client_id: rate_of[client_id] for client_id in access_bytes_per_s}
            rates = max_min_rates([arrivals[i].client_id for i in running], access, rate_of[None])
        else:
            rates = max_min_rates_on([tree.path(arrivals[i].client_id) for i in running], rate_of)
        finish = [
            now_s + left[i] / rate if rate else math.inf for i, rate in zip(running, rates, strict=True)
        ]
        coming = [a.at_s for i, a in enumerate(arrivals) if a.at_s > now_s and i not in ended]
        coming += [change.at_s for change in changes if change.at_s > now_s]
        next_s = min([*finish, *coming, *(arrivals[i].cut_at_s for i in running)])
        if next_s == math.inf:
            return [ended.get(i, (math.inf, a.wire_bytes - left[i])) for i, a in enumerate(arrivals)]
        for i, rate, finish_s in zip(running, rates, finish, strict=True):
            left[i] -= rate * (next_s - now_s)
            if finish_s <= next_s + 1e-9:
                ended[i] = (next_s, arrivals[i].wire_bytes)
            elif arrivals[i].cut_at_s <= next_s:
                ended[i] = (next_s, arrivals[i].wire_bytes - left[i])
        now_s = next_s
    return [ended[i] for i in range(len(arrivals))]

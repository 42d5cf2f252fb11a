"""Why rewards were lost in a stress sweep: requests by cause, phase and device class, groups by domain.

A share is the mean over runs of each run's own share, so that a setting which asks a hundred times as often weighs no more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fedsim.sweeps.stress.rows import Row


def losses(rows: Sequence[Row]) -> dict[str, Any]:
    """Requests asked and lost, and the lost ones by cause, phase and device class; groups by domain.

    Counts are sums over runs. ``shares`` are means over the runs that asked anything (of a class: that asked it; of a
    domain: that had groups of it) of each run's own share.
    """
    asked: Counter[str] = Counter()
    found: dict[str, Counter[str]] = {"cause": Counter(), "phase": Counter(), "device_class": Counter()}
    for row in rows:
        asked.update(row.asked)
        for (cause, _, phase, device_class), count in row.lost.items():
            found["cause"][cause] += count
            found["phase"][phase] += count
            found["device_class"][device_class] += count
    domains: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        for domain, (groups, lost) in row.domains.items():
            domains[domain][0] += groups
            domains[domain][1] += lost
    return {
        "asked": asked.total(),
        "asked_by_class": dict(sorted(asked.items())),
        "lost": found["cause"].total(),
        **{f"by_{name}": dict(counts.most_common()) for name, counts in found.items()},
        "domains": {domain: {"groups": pair[0], "lost": pair[1]} for domain, pair in sorted(domains.items())},
        "shares": _mean_shares(rows),
    }


def _mean_shares(rows: Sequence[Row]) -> dict[str, Any]:
    asking = [row for row in rows if sum(row.asked.values())]
    sums: dict[str, Counter[str]] = {"cause": Counter(), "phase": Counter()}
    for row in asking:
        whole = sum(row.asked.values())
        for (cause, _, phase, _), count in row.lost.items():
            sums["cause"][cause] += count / whole  # type: ignore[assignment]  # a Counter adds any numbers
            sums["phase"][phase] += count / whole  # type: ignore[assignment]
    of_class, of_domain = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for row in rows:
        lost = Counter[str]()
        for (_, _, _, device_class), count in row.lost.items():
            lost[device_class] += count
        for device_class, count in row.asked.items():
            of_class[device_class].append(lost[device_class] / count)
        for domain, (groups, gone) in row.domains.items():
            of_domain[domain].append(gone / groups)
    return {
        "runs": len(asking),
        "lost": sum(sums["cause"].values()) / len(asking) if asking else None,
        **{
            f"by_{part}": {name: total / len(asking) for name, total in found.most_common()}
            for part, found in sums.items()
        },
        "by_device_class": {name: sum(found) / len(found) for name, found in sorted(of_class.items())},
        "domains": {name: sum(found) / len(found) for name, found in sorted(of_domain.items())},
    }


def why_lines(head: str, rows_by_panel: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """What ``why.md`` says below its title, line by line.

    Args:
        head: what the panels are levels of.
        rows_by_panel: the runs of each.
    """
    panels = {name: losses(rows) for name, rows in rows_by_panel.items()}
    total = losses([row for rows in rows_by_panel.values() for row in rows])
    if not total["asked"]:
        yield "No request for rewards is on record.\n"
        return
    asking = total["shares"]["runs"]
    yield (
        f"In the mean over {counted(asking, 'run')}, {total['shares']['lost']:.1%} of the requests brought no reward (all "
        f"together, {total['lost']:,} of {total['asked']:,}). Counted are requests of groups on record; superfluous ones "
        "(over-selected, or the slower of a pair) are in neither number. All shares below are of the requests that were asked, "
        "as means over runs: each run weighs alike, one that asks a hundred times as often too, and one that failed as well as "
        "one that finished. asked is a sum.\n"
    )
    for part, title in (("cause", "By cause"), ("phase", "By phase"), ("device_class", "By device class")):
        names = sorted(total["shares"][f"by_{part}"], key=total["shares"][f"by_{part}"].get, reverse=True)
        yield f"## {title}\n"
        yield line([head, "asked", "lost", *names])
        yield "|---" * (len(names) + 3) + "|"
        for name, found in panels.items():
            yield line([name, f"{found['asked']:,}", *_shares(found, part, names)])
        if len(panels) > 1:
            yield line(["all", f"{total['asked']:,}", *_shares(total, part, names)])
        yield ""
    if "".join(total["asked_by_class"]):
        yield "By device class, shares are of the requests asked of that class, over the runs that asked it.\n"
    yield "## Share of groups lost, by domain\n"
    domains = list(total["domains"])
    yield line([head, *domains])
    yield "|---" * (len(domains) + 1) + "|"
    for name, found in panels.items():
        yield line([name, *(_domain_share(found, domain) for domain in domains)])
    yield ""


def _shares(lost: Mapping[str, Any], part: str, names: Sequence[str]) -> list[str]:
    if not lost["asked"]:
        return ["-"] * (len(names) + 1)
    shares = lost["shares"]
    none = (
        None if part == "device_class" else 0.0
    )  # a class that nobody asked has no share; a cause that never came has 0
    found = [shares[f"by_{part}"].get(name, none) for name in names]
    return [f"{shares['lost']:.1%}", *("-" if share is None else f"{share:.1%}" for share in found)]


def _domain_share(lost: Mapping[str, Any], domain: str) -> str:
    share = lost["shares"]["domains"].get(domain)
    return "-" if share is None else f"{share:.1%}"


def counted(number: int, what: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def line(cells: Iterable[object]) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

"""Tables of the section on schedules: how runs ended, who waited for whom, and ratios to the variant that waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.finished import head, mean, row
from analysis.schedules.passages import SHARES, Amount, climbs, ratios, shown
from analysis.schedules.runs import Family, ScheduleRun, at_most
from fedsim.config.units import format_bytes
from fedsim.sweeps.compare.tables import show
from fedsim.sweeps.stats import QUANTILES, interval, paired, show_quantiles


def ends(family: Family) -> Iterator[str]:
    """How everybody ended."""
    reference = family.runs[family.reference]
    yield from head(
        "variant", "updates", f"{family.unit} trained", "staleness, mean (max)", "dropped as too stale",
        "greedy, test", "minus reference", "pass@1, test", "minus reference",
    )  # fmt: skip
    for name, runs in family.runs.items():
        cells = [
            f"**{name}**" if name == family.reference else name,
            f"{mean(run.summary['updates'] for run in runs):.0f}",
            f"{mean(run.trained for run in runs):,.0f}",
            _staleness(runs),
            _percent([run.stale_share for run in runs]),
        ]
        for measure in ("greedy", "pass_at_1"):
            ends = [run.test(measure) for run in runs]
            cells.append(show(interval(ends)))
            cells.append(
                ""
                if runs is reference
                else show(paired(ends, [run.test(measure) for run in reference]), signed=True)
            )
        yield row(cells)


def why(family: Family) -> Iterator[str]:
    """What waiting costs: who idles."""
    yield (
        "What there is to save: the share of time in which nothing is computed (of the server: of the whole run; of devices: "
        f"of the time they are there), and how long one of the {family.unit} is under way. Looks at the validation questions "
        "are the grain of all times below; who is looked at more often also crosses a target sooner by luck. "
        f"Shares are means over seeds; times: {QUANTILES}"
    )
    yield ""
    yield from head(
        "variant", "server idle", "devices idle", "busiest device idle", "under way", f"seconds per 100 {family.unit}",
        "wasted bytes", "a look every",
    )  # fmt: skip
    for name, runs in family.runs.items():
        yield row(
            [
                name,
                _percent([run.server_idle for run in runs]),
                _percent([run.devices_idle for run in runs]),
                _percent([run.busiest_idle for run in runs]),
                _seconds([run.under_way_s for run in runs]),
                _seconds([None if run.s_per_trained is None else 100 * run.s_per_trained for run in runs]),
                _percent([run.wasted for run in runs]),
                _seconds([_grain_s(run) for run in runs]),
            ]
        )


def ratio_table(family: Family, amount: Amount) -> Iterator[str]:
    """Ratios to the reference for every share of its gain; nothing where it climbs with no seed."""
    if not any(climbs(run) for run in family.runs[family.reference]):
        return
    reference = family.runs[family.reference]
    what = "virtual time" if amount == "virtual_s" else "bytes on the wire"
    yield from head(f"{what}, over `{family.reference}`", *(f"{share:g} of the gain" for share in SHARES))
    for name in compared_with_reference(family):
        yield row([name, *(shown(ratios(family.runs[name], reference, share, amount)) for share in SHARES)])


def even(family: Family, reference_name: str) -> Iterator[str]:
    """Ends of a comparison whose runs stop at the same bytes."""
    name_of = reference_name if reference_name in family.runs else family.reference
    reference = family.runs[name_of]
    yield from head(
        "variant", "wire, both ways", "updates", "validation, end", "greedy, test", "minus reference", "pass@1, test",
        "minus reference",
    )  # fmt: skip
    for name, runs in family.runs.items():
        cells = [
            f"**{name}**" if name == name_of else name,
            format_bytes(mean(run.wire_bytes for run in runs)),
            f"{mean(run.summary['updates'] for run in runs):.0f}",
            show(interval([run.looks[-1].value if run.looks else None for run in runs])),
        ]
        for measure in ("greedy", "pass_at_1"):
            ends = [run.test(measure) for run in runs]
            theirs = [run.test(measure) for run in reference]
            cells += [
                show(interval(ends)),
                "" if runs is reference else show(paired(ends, theirs), signed=True),
            ]
        yield row(cells)


def read_off(family: Family) -> Iterator[str]:
    """Validation accuracy within the bytes that every run of the family spent."""
    if not all(run.looks for runs in family.runs.values() for run in runs):
        yield "Not measured: some run was never looked at."
        return
    budget = min(run.looks[-1].wire_bytes for runs in family.runs.values() for run in runs)
    yield (
        f"No comparison at equal bytes was given; read off the runs above: the last look at the validation questions within "
        f"{format_bytes(budget)} on the wire, both ways, which every run spent. Virtual time: {QUANTILES}"
    )
    yield ""
    found = {
        name: [at_most(run.looks, lambda look: look.wire_bytes, budget) for run in runs]
        for name, runs in family.runs.items()
    }
    greedy = {name: [None if look is None else look.value for look in looks] for name, looks in found.items()}
    yield from head("variant", "validation", "minus reference", "virtual time then")
    for name, looks in found.items():
        yield row(
            [
                name,
                show(interval(greedy[name])),
                ""
                if name == family.reference
                else show(paired(greedy[name], greedy[family.reference]), signed=True),
                _seconds([None if look is None else look.virtual_s for look in looks]),
            ]
        )


def compared_with_reference(family: Family) -> list[str]:
    """Everybody but the reference."""
    return [name for name in family.runs if name != family.reference]


def _staleness(runs: Sequence[ScheduleRun]) -> str:
    known = [run.summary["staleness"] for run in runs]
    means = [one["mean"] for one in known if one["mean"] is not None]
    return (
        f"{mean(means):.2f} ({max(one['max'] for one in known if one['max'] is not None)})" if means else ""
    )


def _grain_s(run: ScheduleRun) -> float | None:
    return run.looks[-1].virtual_s / (len(run.looks) - 1) if len(run.looks) > 1 else None


def _percent(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.1%}" if known else ""


def _seconds(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return show_quantiles(known, "{:.2f} s".format) if known else ""

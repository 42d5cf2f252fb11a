"""The section on schedules: is it worth not to wait for everybody? Tables and verdict from finished comparisons.

Looked for: half of the virtual time to the accuracy with which the best variant that waits ends, at equal questions in flight
and candidates, settings chosen on validation questions of other seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from analysis import provenance
from analysis.finished import Compared, format_list, head, mean, read, row
from analysis.schedules import passages
from analysis.schedules import tables as schedule_tables
from analysis.schedules.passages import SHARES, geometric, ratios, shown
from analysis.schedules.runs import Family, ScheduleRun, read_families
from fedsim.errors import RunFolderError
from fedsim.sweeps.compare.tables import show
from fedsim.sweeps.compare.tuning import JSON, TABLE
from fedsim.sweeps.stats import Interval, interval, paired

WANTED_RATIO = 0.5
"""Of the virtual time of the best variant that waits, to the accuracy with which it ends."""
WANTED_SEEDS = 5


def lines(
    found: Sequence[tuple[Compared, Sequence[Family]]], tuning: Sequence[Path], even: Sequence[Compared]
) -> Iterator[str]:
    """The section, line by line.

    Args:
        found: the main comparisons, each with its families (`read_families`).
        tuning: the folders in which settings were chosen.
        even: the comparisons at equal bytes.

    Raises:
        RunFolderError: a folder is none of a finished comparison.
    """
    yield (
        f"Looked for: a schedule that does not wait needs at most {WANTED_RATIO:g} of the virtual time of the best variant "
        "that waits, to the accuracy with which that one ends; at the same number of questions in flight and of candidates, "
        f"settings chosen on validation questions, {WANTED_SEEDS} seeds. Families are compared within themselves."
    )
    for folder in tuning:
        yield from ["", f"### Chosen on validation questions: {folder.name}", "", *_tuning(folder)]
    same_bytes = [(compared, family) for compared in even for family in read_families(compared)]
    for compared, families in found:
        if not families:
            yield ""
            yield f"No variant of {compared.name} waits for everybody: there is nothing to compare with."
        for family in families:
            yield from ["", f"### {family.title}", "", *_family(compared, family), ""]
            yield from [f"#### {family.title}: equal bytes", ""]
            same = (pair for pair in same_bytes if pair[1].unit == family.unit)
            yield from _bytes(family, next(same, None))


def _family(compared: Compared, family: Family) -> Iterator[str]:
    yield provenance.made(compared)
    yield ""
    measured = [name for name in provenance.unmeasured(compared) if name in family.runs]
    steps = [run.summary["updates"] for runs in family.runs.values() for run in runs]
    yield f"What was short: {' '.join(provenance.short_of(compared.seeds, WANTED_SEEDS, steps, measured))}"
    yield ""
    yield f"Reference: `{family.reference}` ({family.chosen_on}).{_noise(family)}"
    for part in (schedule_tables.ends, schedule_tables.why, _times, _verdict):
        yield from ["", *part(family)]


def _noise(family: Family) -> str:
    """How noisy one look at the validation questions is."""
    errors = [passages.noise(run) for run in family.runs[family.reference] if run.looks]
    if not errors or not all(errors):
        return ""
    return (
        f" One look at the validation questions has a standard error of {mean(errors):.3f} (other questions would have been "
        "others; between two looks of a run, at the same questions, it is smaller)."
    )


def _bytes(family: Family, same: tuple[Compared, Family] | None) -> Iterator[str]:
    if same is not None:
        yield from [provenance.made(same[0]), "", *schedule_tables.even(same[1], family.reference)]
        return
    yield from [*schedule_tables.read_off(family), "", *schedule_tables.ratio_table(family, "wire_bytes")]


def tuned_validation(tuning: Path) -> dict[str, float]:
    """Validation accuracy by variant in the folder where settings were chosen: at the chosen value, or at the end.

    Raises:
        RunFolderError: the folder is none of a finished comparison.
    """
    path = tuning / JSON
    if not path.is_file():
        ends = {
            name: interval([run["validation"]["greedy"]["final"] for run in runs])["mean"]
            for name, runs in read(tuning).summaries.items()
        }
        return {name: float(end) for name, end in ends.items() if end is not None}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {
            variant["name"]: float(tried["validation"]["mean"])
            for variant in document["variants"]
            for tried in variant.get("tried", ())
            if tried["value"] == variant["chosen"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} cannot be read ({error!r}); tune again") from None


def _tuning(folder: Path) -> Iterator[str]:
    page = folder / TABLE
    if page.is_file():
        yield from page.read_text(encoding="utf-8").strip().split("\n")
        return
    compared = read(folder)
    yield f"{provenance.made(compared)} Test questions are looked at by no choice."
    yield ""
    yield from head("variant", "validation, end", "updates")
    for name, runs in compared.summaries.items():
        found = interval([run["validation"]["greedy"]["final"] for run in runs])
        yield row([name, show(found), f"{mean(run['updates'] for run in runs):.0f}"])


def _times(family: Family) -> Iterator[str]:
    reference = family.runs[family.reference]
    gains = [passages.gain(run) for run in reference]
    said = ", ".join("not measured" if one is None else f"{one:+.3f}" for one in gains)
    yield (
        f"`{family.reference}` gains {said} on validation questions, by seed. "
        + _left_out([run.seed for run in reference if not passages.climbs(run)], len(reference))
    )
    if not any(map(passages.climbs, reference)):
        return
    yield ""
    yield (
        "Virtual time to a share of that gain, with the same seed and above that seed's start, over the reference's: geometric "
        "mean over the seeds in which both came there, 95% Student-t on logarithms. A seed in which only one came there is a "
        "bound (`<`: the reference never did, `>`: this one never did)."
    )
    yield from ["", *schedule_tables.ratio_table(family, "virtual_s"), ""]
    yield from head("variant", *(f"seed {run.seed}, full gain" for run in reference))
    for name in schedule_tables.compared_with_reference(family):
        found = ratios(family.runs[name], reference, 1.0, "virtual_s")
        yield row([name, *("no gain" if one is None else str(one) for one in found)])


def _left_out(seeds: Sequence[int], total: int) -> str:
    if not seeds:
        return "Every seed can be judged."
    which = (
        "every seed"
        if len(seeds) == total
        else f"seed {format_list(seeds)}"
        if len(seeds) == 1
        else f"seeds {format_list(seeds)}"
    )
    return f"Left out: {which}, where that is less than {passages.NOISE_FACTOR:g} standard errors of a look, so noise."


def _verdict(family: Family) -> Iterator[str]:
    """For everybody who does not wait: is it half of the time, and of what is the ratio made?"""
    reference = family.runs[family.reference]
    for name in family.others:
        ours = family.runs[name]
        yield f"* **{name}**: {_judged(ours, reference)}{_made_of(family, name)}{_at_the_end(ours, reference)}"
    yield (
        f"* What there is to win: under `{family.reference}` the server computes {_busy(reference, 'server_idle')} and the "
        f"busiest device {_busy(reference, 'busiest_idle')} of the time. If a question cost that device the same computing "
        "everywhere, never waiting could bring the time of a question down to that share and no further; what lies below it "
        "comes from less computing per trained question, or from fewer questions."
    )


def _judged(ours: Sequence[ScheduleRun], theirs: Sequence[ScheduleRun]) -> str:
    """Whether it is half of the time: in the mean of at least `ENOUGH_SEEDS` seeds, with an interval below 1."""
    found = [one for one in ratios(ours, theirs, 1.0, "virtual_s") if one is not None]
    if not found:
        return "no seed can be judged, so NOT met."
    exact, whole = geometric(found), passages.bound(found)
    said = f"{shown(found)} of the time to the full gain. Wanted: at most {WANTED_RATIO:g}; "
    central = (
        exact["mean"] if exact["n"] == len(found) else whole.value if whole and whole.sense == "<" else None
    )
    if central is None:
        lowest = whole is not None and whole.value > WANTED_RATIO
        return f"{said}NOT met{'.' if lowest else ', since some seed never came there.'}"
    if central > WANTED_RATIO:
        return f"{said}NOT met.{_sure(exact)}"
    if len(found) < provenance.ENOUGH_SEEDS:
        return f"{said}it is, but {len(found)} seeds are too few to say so: NOT met."
    if exact["high"] is None or exact["high"] >= 1:
        return f"{said}it is in the mean, but the interval reaches 1: NOT met."
    return f"{said}met.{_sure(exact)}"


def _at_the_end(ours: Sequence[ScheduleRun], theirs: Sequence[ScheduleRun]) -> str:
    """The other way to compare: accuracy where the runs end."""
    found = paired([run.test("pass_at_1") for run in ours], [run.test("pass_at_1") for run in theirs])
    if found["mean"] is None:
        return ""
    told = ""
    if found["low"] is not None and found["high"] is not None:
        told = ", better" if found["low"] > 0 else ", worse" if found["high"] < 0 else ", not told apart"
    return f" At the end of the runs: {show(found, signed=True)} pass@1 on test questions{told}."


def _sure(exact: Interval) -> str:
    if exact["high"] is None or exact["low"] is None:
        return ""
    if exact["high"] < 1:
        return " Faster: the interval lies below 1."
    if exact["low"] > 1:
        return " Slower: the interval lies above 1."
    return " The interval holds 1: neither faster nor slower for sure."


def _made_of(family: Family, name: str) -> str:
    """The ratio's two factors at the largest share that every seed of both reached."""
    ours, theirs = family.runs[name], family.runs[family.reference]
    for share in reversed(SHARES):
        times, works = (ratios(ours, theirs, share, amount) for amount in ("virtual_s", "trained"))
        known = [one for one in times if one is not None]
        if known and all(one.sense == "=" for one in known):
            said = f" To {share:g} of the gain it took {shown(times)} of the time"
            if all(one is None for one in works):  # some schedules do not count what they train on
                return f"{said}."
            each = passages.s_per_trained_ratios(ours, theirs, share)
            return f"{said}: {shown(works)} times the {family.unit}, at {shown(each)} times the seconds for each."
    return ""


def _busy(runs: Sequence[ScheduleRun], which: str) -> str:
    known = [1 - share for run in runs if (share := getattr(run, which)) is not None]
    return f"{mean(known):.0%}" if known else "an unknown share"

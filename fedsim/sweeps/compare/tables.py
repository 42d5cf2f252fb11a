"""What a comparison says: every number of the summaries over seeds, as a mean with its 95% interval and as quantiles.

Intervals are Student-t over seeds (n = seeds): one run is one observation, whatever it averaged inside. Differences are
paired by seed, because a seed fixes partition, models and devices for every variant. Virtual times are heavy-tailed, so tables
show their median and 90th percentile (`fedsim.sweeps.stats`), never a mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsim.config.csv_files import csv_records
from fedsim.config.units import format_seconds
from fedsim.errors import RunFolderError
from fedsim.records.run_folder import write_atomically, write_json
from fedsim.records.summary import TIMING
from fedsim.sweeps.compare.fairness import alike_losses, unlike_requests
from fedsim.sweeps.compare.target import Target, TargetConfig, Way, describe, median_way, resolve, way_to
from fedsim.sweeps.stats import (
    LEVEL,
    QUANTILES,
    Interval,
    interval,
    paired,
    percentile,
    quantiles,
    show_quantiles,
)

Summaries = Mapping[str, Sequence[Mapping[str, Any]]]
Ways = Mapping[str, Sequence[Way | None]]
"""Each variant's ways to the target, in the order of the seeds."""

Tuned = Mapping[str, Mapping[str, Any] | None]

PRIVACY = "privacy.json"  # in the folder of a run that made synthetic rows
MEDIAN = (
    "The median over the runs (of an even number the lower one), a run that never reached the target counting as more than any "
    "other, and none where more than half did not; costs are rounded up to the next look at the validation questions."
)
_COMPARED = ("accuracy", "validation", "bytes", "updates", "virtual_s")  # what differences are written of


def aggregate(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of several summaries under the same keys, each as an interval with its quantiles; texts are left out."""
    keys = dict.fromkeys(key for summary in summaries for key in summary)
    found: dict[str, Any] = {}
    for key in keys:
        entries = [summary.get(key) for summary in summaries]
        if any(isinstance(entry, Mapping) for entry in entries):
            found[key] = aggregate([entry for entry in entries if isinstance(entry, Mapping)])
        elif all(
            entry is None or (isinstance(entry, int | float) and not isinstance(entry, bool))
            for entry in entries
        ):
            found[key] = interval(entries) | quantiles([entry for entry in entries if entry is not None])
    return found


def write_comparison(
    folder: Path,
    name: str,
    seeds: Sequence[int],
    summaries: Summaries,
    runs: Sequence[Mapping[str, Any]],
    *,
    target: TargetConfig | None = None,
    tuned: Tuned | None = None,
    scenarios: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Path]:
    """Write ``comparison.json``, ``comparison.csv`` (one row per run) and ``comparison.md`` (a table for a paper).

    In ``comparison.json`` each of ``variants`` has ``name``, ``protocol``, ``leaves`` (what leaves the clients), ``billed``,
    ``tuned``, ``gain``, every number of the summaries under its own key, ``minus_first`` (differences to the first variant,
    paired by seed; null for the first itself) and ``to_target`` (see `fedsim.sweeps.compare.target.describe`). Beside them
    stand ``target``, the validation accuracy that counts as reached (null where there is none), ``target_origin``, its
    source, and ``cautions`` (`fedsim.sweeps.compare.fairness`).

    Args:
        folder: where to write.
        name: the comparison's name.
        seeds: its seeds.
        summaries: each variant's summaries, in the order of the seeds.
        runs: where each run lies, in the same order: ``variant``, ``seed``, ``folder`` (beside the files).
        target: which validation accuracy counts as reached; default half of the first variant's gain.
        tuned: per variant, the setting that is tuned: ``key``, ``value`` and ``by`` (``tuning``, or ``file`` where the
            file's own value was used); None for a variant without one.
        scenarios: each variant's settings, resolved, of any one seed.

    Raises:
        RunFolderError: a run's metrics or its privacy ledger cannot be read.
    """
    settings = tuned or {}
    first_name, first = next(iter(summaries.items()))
    goal = resolve(target or TargetConfig(share_of_gain=0.5), first_name, first)
    ways = {variant: _ways(folder, variant, runs, goal) for variant in summaries}
    variants = [
        {"name": variant, "protocol": found[0]["protocol"], "leaves": leaving(found)}
        | {"billed": found[0].get("billed"), "tuned": settings.get(variant)}
        | {"gain": interval([gain(one) for one in found])}
        | {key: value for key, value in aggregate(found).items() if key not in ("seed", "wall_s", "billed")}
        | {"minus_first": None if found is first else _differences(found, first)}
        | {"to_target": describe([one["seed"] for one in found], ways[variant])}
        for variant, found in summaries.items()
    ]
    cautions = [*unlike_requests(summaries), *alike_losses(scenarios or {})]
    document = {
        "name": name,
        "seeds": list(seeds),
        "level": LEVEL,
        "target": None if goal is None else goal.validation_greedy,
        "target_origin": None if goal is None else goal.origin,
        "cautions": cautions,
        "variants": variants,
        "runs": list(runs),
    }
    promised = {variant: _epsilons(folder, variant, runs) for variant in summaries}
    notes = [*_notes(seeds, goal, settings, summaries), *(f"{said}\n" for said in cautions)]
    page = "\n".join([table(summaries, ways, promised), *_looks_table(summaries), *notes])
    return [
        write_json(folder / "comparison.json", document),
        write_atomically(folder / "comparison.csv", _csv(summaries, ways)),
        write_atomically(folder / "comparison.md", page.encode()),
    ]


def leaving(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What left the clients in any of several runs (see `fedsim.records.totals.Traffic.leaves`)."""
    return list(dict.fromkeys(kind for summary in summaries for kind in summary.get("leaves", ())))


def _ways(
    folder: Path, variant: str, runs: Sequence[Mapping[str, Any]], goal: Target | None
) -> list[Way | None]:
    places = [folder / run["folder"] for run in runs if run["variant"] == variant]
    return [None if goal is None else way_to(place, goal.validation_greedy) for place in places]


def _epsilons(folder: Path, variant: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The privacy losses (nats) that a variant's runs promise for their synthetic rows; none where nothing is on record."""
    found: dict[str, None] = {}
    for run in runs:
        ledger = folder / run["folder"] / PRIVACY
        if run["variant"] != variant or not ledger.is_file():
            continue
        try:
            entries = json.loads(ledger.read_text(encoding="utf-8"))
            found |= dict.fromkeys(f"{float(entry['epsilon']):g}" for entry in entries)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{ledger} cannot be read ({error!r}); run it again") from None
    return list(found)


def _differences(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Ours minus theirs, seed by seed, under the summaries' keys, and of the gain."""
    pairs = list(zip(ours, theirs, strict=True))
    gains = paired([gain(one) for one in ours], [gain(one) for one in theirs])
    keys = [*_COMPARED, *(["looks"] if any("looks" in one for one in ours) else [])]
    compared = [
        _minus({key: one.get(key) for key in keys}, {key: other.get(key) for key in keys})
        for one, other in pairs
    ]
    return {"gain": gains} | aggregate(compared)


def _minus(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in ours.items():
        other = theirs.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            found[key] = _minus(value, other)
        elif isinstance(value, int | float) and isinstance(other, int | float):
            found[key] = value - other
        elif value is None or other is None:
            found[key] = None
    return found


def gain(summary: Mapping[str, Any], measure: str = "greedy") -> float | None:
    """Final minus initial accuracy on the test questions of one run."""
    accuracy = summary["accuracy"][measure]
    if accuracy["initial"] is None or accuracy["final"] is None:
        return None
    return float(accuracy["final"] - accuracy["initial"])


def table(
    summaries: Summaries, ways: Ways | None = None, promised: Mapping[str, Sequence[str]] | None = None
) -> str:
    """A Markdown table for a paper: one line per variant, means over seeds (times: median and 90th percentile), sizes in MiB.

    ``wasted`` is the share of the wire's bytes, both ways, whose fate is not ``useful``; bytes to the target are the wire's,
    both ways, as the censored median (`fedsim.sweeps.compare.target.censored_median`). ``promised`` has the epsilons of a
    variant's synthetic rows.
    """
    reference = next(iter(summaries.values()))
    lines = [
        "| method | leaves a client | greedy, test | minus first | uplink, paper | wire, up | wire, down | wasted "
        "| virtual time | bytes to target |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in summaries.items():
        final = [run["accuracy"]["greedy"]["final"] for run in runs]
        against = [run["accuracy"]["greedy"]["final"] for run in reference]
        cells = [
            name,
            _leaving_cell(runs, (promised or {}).get(name, ())),
            show(interval(final)),
            "" if runs is reference else show(paired(final, against), signed=True),
            *(
                _size(interval([run["bytes"][account][direction] for run in runs])["mean"])
                for account, direction in (("paper", "uplink"), ("wire", "uplink"), ("wire", "downlink"))
            ),
            _share(interval([wasted_share(run) for run in runs])["mean"]),
            show_quantiles([run["virtual_s"] for run in runs], format_seconds),
            _way_cell((ways or {}).get(name, ())),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _looks_table(summaries: Summaries) -> Iterator[str]:
    """A Markdown table of the extra sets of questions, where there are any: final greedy accuracy, and what it began with."""
    found = {name: [run.get("looks", {}) for run in runs] for name, runs in summaries.items()}
    names = sorted({look for looks in found.values() for one in looks for look in one})
    if not names:
        return
    lines = [
        f"| method | {' | '.join(f'greedy, {look}' for look in names)} |",
        "|---" * (len(names) + 1) + "|",
    ]
    for method, looks in found.items():
        greedy = [[one.get(look, {}).get("greedy", {}) for one in looks] for look in names]
        cells = [
            f"{show(interval([one.get('final') for one in row]))}, from "
            f"{show(interval([one.get('initial') for one in row]))}"
            for row in greedy
        ]
        lines.append("| " + " | ".join([method, *cells]) + " |")
    yield "\n".join(lines) + "\n"


def wasted_share(summary: Mapping[str, Any]) -> float | None:
    """Share of a run's wire bytes, both ways, whose fate is not ``useful``; None if there were none."""
    by_fate = summary["bytes"].get("by_fate", {})
    total = sum(by_fate.values())
    return 1 - by_fate["useful"] / total if total else None


def _leaving_cell(runs: Sequence[Mapping[str, Any]], epsilons: Sequence[str]) -> str:
    kinds = leaving(runs)
    if not kinds:
        return "nothing" if all("leaves" in run for run in runs) else "not recorded"
    of_rows = f" (epsilon {' and '.join(epsilons)})" if epsilons else ""
    return ", ".join(kind + of_rows if kind == "synthetic rows" else kind for kind in kinds)


def _way_cell(ways: Sequence[Way | None]) -> str:
    known = [way for way in ways if way is not None]
    if not known:
        return ""
    median = median_way(known, "wire_bytes")
    count = f"reached {sum(way.reached for way in known)} of {len(known)}"
    return count if median is None else f"{_size(median)}; {count}"


def _notes(seeds: Sequence[int], goal: Target | None, tuned: Tuned, summaries: Summaries) -> Iterator[str]:
    """What a reader of the table must know, one paragraph each."""
    listed = ", ".join(map(str, seeds))
    timed = [name for name, runs in summaries.items() if any(run.get("fidelity") == "timing" for run in runs)]
    if timed:
        yield f"Fidelity {TIMING} ({', '.join(timed)}).\n"
    yield (
        f"Means over {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'} ({listed}); in brackets {LEVEL:.0%} Student-t "
        "intervals over seeds; differences are paired by seed. Wasted: share of the wire's bytes, both ways, that served "
        f"nothing. Virtual time: {QUANTILES}\n"
    )
    if goal is None:
        yield "No target: the validation accuracy of the first variant was not measured or has not grown.\n"
    else:
        yield (
            f"Target: greedy accuracy {goal.validation_greedy:.3f} on the validation questions ({goal.origin}); bytes to it "
            f"are the wire's, both ways. {MEDIAN}\n"
        )
    settings = [f"{name}: {_setting(setting)}" for name, setting in tuned.items() if setting]
    if settings:
        yield f"Settings: {'; '.join(settings)}. All others are the file's own.\n"
    training: dict[str, list[str]] = {}
    for name, runs in summaries.items():
        known = [found_s for run in runs if (found_s := _longest_training_s(run)) is not None]
        longest_s = percentile(known, 50)
        if longest_s:
            training.setdefault(f"{format_seconds(longest_s)} on the slowest device", []).append(name)
    if training:
        spent = "; ".join(f"{text}: {', '.join(names)}" for text, names in training.items())
        yield f"Not in virtual time: training the clients' own models once, {spent}.\n"
    billed = _billed(summaries)
    if billed:
        yield "Bytes and times are billed; the accuracy is that of the small models that ran.\n"
        yield "\n".join(f"- {text}: {whose}" for text, whose in billed) + "\n"


def _longest_training_s(summary: Mapping[str, Any]) -> float | None:
    """How long the slowest device trained its client's own model before the run; None where it was not recorded."""
    longest_s: float | None = summary.get("one_off", {}).get("client_training", {}).get("longest_s")
    return longest_s


def _billed(summaries: Summaries) -> list[tuple[str, str]]:
    """What is billed (models first, then lengths of texts), each once, and of which variants."""
    found: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
    for name, runs in summaries.items():
        models, mark, lengths = (runs[0].get("billed") or "").partition("text lengths: ")
        for texts, text in zip(found, (models.removesuffix("; "), mark + lengths), strict=True):
            if text:
                texts.setdefault(text, []).append(name)
    return [
        (text, "all methods" if len(names) == len(summaries) else ", ".join(names))
        for texts in found
        for text, names in texts.items()
    ]


def _setting(tuned: Mapping[str, Any]) -> str:
    where = "chosen on validation" if tuned["by"] == "tuning" else "the file's own, not chosen here"
    return f"{tuned['key']} {tuned['value']} ({where})"


def show(found: Interval, *, signed: bool = False, digits: int = 3) -> str:
    """An interval for people: ``0.412 [0.398, 0.426]``."""
    if found["mean"] is None:
        return "not measured"
    mean, low, high = (
        _rounded(found[bound], "+" if signed else "", digits) for bound in ("mean", "low", "high")
    )
    return mean if not low or not high else f"{mean} [{low}, {high}]"


def _rounded(number: float | int | None, sign: str, digits: int) -> str:
    """A number with its digits, or nothing for None; what rounds to zero has no minus."""
    return "" if number is None else f"{round(number, digits) + 0.0:{sign}.{digits}f}"


def _size(amount: float | int | None) -> str:
    """Mebibytes with three digits or more that count, so that columns compare at a glance."""
    if amount is None:
        return "not measured"
    mebibytes = amount / 2**20
    if 0 < mebibytes < 1:
        return f"{mebibytes:.3f} MiB" if mebibytes >= 0.001 else "< 0.001 MiB"
    return f"{mebibytes:.{1 if mebibytes >= 100 else 2}f} MiB"


def _share(share: float | int | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _csv(summaries: Summaries, ways: Ways) -> bytes:
    return csv_records(
        {"variant": variant}
        | _flat(summary)
        | ({} if way is None else _flat({"reached": way.reached} | way.amounts(), "to_target."))
        for variant, runs in summaries.items()
        for summary, way in zip(runs, ways[variant], strict=True)
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            found |= _flat(entry, f"{prefix}{key}.")
        else:
            found[prefix + key] = entry if not isinstance(entry, list) else json.dumps(entry)
    return found

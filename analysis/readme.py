"""The parts of README that state results, written from the tables in ``docs/results/`` like the evidence pages.

A part stands between ``<!-- results: NAME -->`` and ``<!-- end of results -->``; `filled` writes it anew, and a test finds a
README whose parts are not what the tables say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from analysis.dropout import LEVELS, POLICIES, lost_share
from analysis.evidence import worst_attacks
from analysis.results import Results, difference, share
from analysis.tables import (
    DOWN,
    LEAVES,
    TIME,
    UP,
    Column,
    Tables,
    head,
    mean_of,
    merged,
    row,
    shared_seeds,
    title,
)
from fedsim.config.units import format_bytes
from fedsim.errors import InputError
from fedsim.sweeps.stats import Interval, percentile

_PART = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end of results -->)", re.DOTALL)
NOT_RUN = "(Not run at this version.)"


def filled(text: str, tables: Tables) -> str:
    """README with every part of results written anew.

    Raises:
        InputError: a part has a name that is not known.
    """

    def part(found: re.Match[str]) -> str:
        if found[2] not in PARTS:
            raise InputError(
                f"README.md: there is no part of results {found[2]!r}; there are {', '.join(PARTS)}"
            )
        lines = "\n".join(PARTS[found[2]](tables))
        return f"{found[1]}{lines}\n{found[3]}"

    return _PART.sub(part, text)


def said(found: Interval, *, signed: bool = False) -> str:
    """An interval as README writes it: no 0 before the point."""
    return re.sub(r"(?<![\d.])0\.(?=\d)", ".", _plain(found, signed)).replace("-.000", ".000")


def _plain(found: Interval, signed: bool) -> str:
    if found["mean"] is None:
        return "not measured"
    sign = "+" if signed else ""
    mean = format(found["mean"], f"{sign}.3f")
    if found["low"] is None or found["high"] is None:
        return mean
    return f"{mean} [{format(found['low'], f'{sign}.3f')}, {format(found['high'], f'{sign}.3f')}]"


def _end(results: Results, name: str) -> str:
    return said(mean_of(results.values(name, "end")))


def _gain_share(results: Results, name: str) -> str:
    return said(share(results.values(name, "gain"), results.values("central_grpo", "gain")))


def _start(results: Results) -> str:
    return said(mean_of(results.values("fedgrpo", "accuracy", "greedy", "initial")))


def _minus_of(results: Results, name: str, other: str) -> str:
    return said(difference(results.values(name, "end"), results.values(other, "end")), signed=True)


def _made(results: Results, *names: str) -> str:
    """Seeds and commit of these variants; what is missing of them is said."""
    counts = {name: len(results.by_name[name]) for name in names if results.by_name.get(name)}
    planned = sum(len(results.planned[name]) for name in names if name in results.planned)
    few, many = min(counts.values()), max(counts.values())
    seeds = f"{few}{f' to {many}' if few != many else ''} seed{'s' if many != 1 else ''}"
    done = sum(counts.values())
    short = "" if done == planned else f" ({done} of {planned} runs are finished)"
    commits = ", ".join(sorted({run.commit[:7] for run in results.runs if run.name in names}))
    return f"{seeds}{short}, 95% intervals over them, commit {commits}"


def _seeds(results: Results, name: str) -> str:
    """Said where a variant has other seeds than FedGRPO."""
    n = len(results.by_name[name])
    return "" if n == len(results.by_name["fedgrpo"]) else f" ({n} seed{'s' if n != 1 else ''})"


# --------------------------------------------------------------------------------------------- the pretrained model


def _skills(tables: Tables) -> Results | None:
    return merged(tables.get("skills_methods"), tables.get("skills_controls"))


def _first(tables: Tables) -> Iterator[str]:
    skills = _skills(tables)
    if skills is None or not skills.by_name.get("fedgrpo") or not skills.by_name.get("central_grpo"):
        yield NOT_RUN
        return
    ours = share(skills.values("fedgrpo", "gain"), skills.values("central_grpo", "gain"))
    met = "met" if (ours["mean"] or 0.0) >= 0.9 else "**not met**"
    yield (
        "**What comes out, on a pretrained model** (SmolLM2-135M, eight clients with adapters of their own, words that "
        "nobody was "
        f"asked; {_made(skills, 'fedgrpo', 'central_grpo', 'random', 'majority_vote', 'paper_selection', 'distil')}). "
        "With nothing "
        f"but scalars leaving the clients, FedGRPO ends at {_end(skills, 'fedgrpo')} from {_start(skills)}: "
        f"{said(ours)} of the gain "
        f"that the truth as reward gives ({_end(skills, 'central_grpo')}); the wanted .9 is {met}."
    )
    controls = {
        "random": ("as many random clients have", _gain_share, "of that gain"),
        "self_reward": ("the server's own likelihood", _gain_share, ""),
        "majority_vote": ("the majority of the server's own candidates ends at", _end, ""),
        "paper_selection": (
            "the paper's selection as we read it (no floor, L = 20 of 64 exemplars, standardised per expert: three "
            "changes at once) has",
            _gain_share,
            "",
        ),
        "distil": ("the experts' answers, distilled, end at", _end, "and leave the clients as text"),
        "fedpetuning-sft": ("averaged adapters (FedPETuning, SFT) end at", _end, ""),
    }
    sentence = "; ".join(
        " ".join(filter(None, (before, number(skills, name), after))) + _seeds(skills, name)
        for name, (before, number, after) in controls.items()
        if skills.by_name.get(name)
    )
    yield sentence[:1].upper() + sentence[1:] + "."
    yield from _without_clients(skills)
    attacks = [
        attack for name in ("fedgrpo", "distil", "fedpetuning-sft") for attack in _strongest(skills, name)
    ]
    if attacks:
        yield (
            "A server that chooses what it sends tells a client's training rows from others with an area under the curve of "
            f"{'; '.join(attacks)} (.5 is a coin; in brackets what it finds at 1% false ones; an adapter had a quarter "
            "of the steps on those rows)."
        )
    yield (
        "It does **not** show other models, other words, longer answers or more clients, nor that scalars are private: "
        "[docs/evidence.md](docs/evidence.md)."
    )


def _without_clients(skills: Results) -> Iterator[str]:
    """What the server's own labels give, without any client."""
    names = [name for name in ("dp_sft", "dp_grpo") if skills.by_name.get(name)]
    if not names:
        return
    more = {name: difference(skills.values(name, "end"), skills.values("fedgrpo", "end")) for name in names}
    shown = all(one["high"] is not None and one["high"] < 0 for one in more.values())
    ends = " and at ".join(
        f"{_end(skills, name)} by {title(name).rpartition(' ')[2]} (minus FedGRPO {said(more[name], signed=True)})"
        for name in names
    )
    yield (
        "**Without any client**, the server's own 64 labelled words (FedGRPO reads competence off them and does not "
        "train on them) "
        f"end at {ends}{_seeds(skills, names[0])}, so on this job clients are {'' if shown else 'not '}shown to teach "
        "more than these "
        "labels do."
    )


def _strongest(results: Results, name: str, called: str | None = None) -> Iterator[str]:
    """AUC and true positives of the strongest attack on training rows, but for those on the final policy."""
    found = {wire: both for wire, both in worst_attacks(results, name).items() if wire[0] != "policy"}
    if found:
        (read, server), (area, sure) = max(found.items(), key=lambda one: mean_of(one[1][0])["mean"] or 0.0)
        whose = called or title(name).split(",")[0].split(" (")[0]
        honest = ", honest server" if server == "honest" else ""
        few = (
            ""
            if len(area) == len(results.by_name[name])
            else f", {len(area)} seed{'s' if len(area) != 1 else ''}"
        )
        yield f"{said(mean_of(area))} from {read} of {whose} ({said(mean_of(sure))}{honest}{few})"


_WHO = {
    "central_grpo": "the truth (Central-GRPO)",
    "fedgrpo": "the two most competent clients, floor .7 (ours; the shipped file)",
    "trusted": "... clients that own a trusted answer to every question (AE)",
    "oracle": "... experts chosen by 4 validation words a form",
    "answers_up": "... experts' answers go up instead of scores (the released code)",
    "paper_selection": "the two most competent clients, the paper's selection",
    "random": "as many clients at random",
    "self_reward": "the server's own likelihood",
    "majority_vote": "the majority of the server's own candidates",
    "dp_grpo": "the server's 64 labelled words, GRPO",
    "dp_sft": "nobody: SFT on the server's 64 labelled words",
    "distil": "nobody: the experts' answers are distilled",
    "fedpetuning-sft": "nobody: adapters averaged (FedPETuning, SFT)",
    "fedpetuning-grpo": "clients' own GRPO, adapters averaged (FedPETuning)",
}


def _skills_table(tables: Tables) -> Iterator[str]:
    skills = _skills(tables)
    if skills is None:
        yield NOT_RUN
        return
    shared = shared_seeds(skills, skills.planned)
    seeds = ", ".join(map(str, sorted({run.seed for run in shared.runs})))
    yield (
        f"Its comparison (`fedsim compare skills_methods` and `skills/controls`; {_made(skills, *skills.planned)}; "
        "shares are ratios of "
        f"mean gains; sizes and times are medians over seeds {seeds}):"
    )
    yield ""
    yield from head(
        "who rewards",
        "seeds",
        "greedy on unseen words, end",
        "share of the truth's gain",
        "leaves a client",
        "wire, both ways",
        "virtual time",
    )
    yield row(["(start)", "", _start(skills), "", "", "", ""])
    for name, who in _WHO.items():
        if skills.by_name.get(name):
            shares = "1" if name == "central_grpo" else _gain_share(skills, name)
            cells = [LEAVES.cell(shared, name), _both_ways(shared, name), TIME.cell(shared, name)]
            yield row([who, str(len(skills.by_name[name])), _end(skills, name), shares, *cells])
    yield ""
    yield (
        "FedGRPO minus "
        + ", minus ".join(
            f"{label} {_minus_of(skills, 'fedgrpo', name)}"
            for name, label in (
                ("random", "random"),
                ("self_reward", "the server's own likelihood"),
                ("majority_vote", "the majority"),
                ("paper_selection", "the paper's selection"),
                ("distil", "distil"),
                ("fedpetuning-sft", "FedPETuning"),
                ("central_grpo", "Central-GRPO"),
            )
            if skills.by_name.get(name)
        )
        + " (paired by seed)."
    )
    if skills.by_name.get("first_answer"):
        first = skills.over(set(skills.by_name["first_answer"]))
        yield (
            f"FedGRPO that asks its first question when the *first* client has said what it knows, instead of every client "
            f"(`probed_share`), ends at {_end(first, 'first_answer')}, by {_minus_of(first, 'first_answer', 'fedgrpo')} "
            f"({len(first.by_name['first_answer'])} seeds), after {TIME.cell(first, 'first_answer')} instead of "
            f"{TIME.cell(first, 'fedgrpo')} (medians)."
        )


def _both_ways(results: Results, name: str) -> str:
    found = percentile(list(results.values(name, "wire_bytes").values()), 50)
    return "" if found is None else format_bytes(found)


# ------------------------------------------------------------------------------------------------------ the tiny job


def _tiny(tables: Tables) -> Iterator[str]:
    controls, errors = tables.get("controls"), tables.get("errors")
    if controls is None:
        yield NOT_RUN
        return
    yield (
        f"On the tiny job (`scenarios/tiny.yaml`; `fedsim compare evidence`, {_made(controls, *controls.planned)}, start "
        f"{_start(controls)}; differences paired): FedGRPO ends at {_end(controls, 'fedgrpo')} and has "
        f"{_gain_share(controls, 'fedgrpo')} "
        "of the gain that the truth as reward gives (Central-GRPO), with the paper's selection "
        f"{_gain_share(controls, 'paper_selection')}; "
        f"as many random experts {_gain_share(controls, 'random')}; the server's own likelihood "
        f"{_gain_share(controls, 'self_reward')} and "
        f"the majority of its own candidates {_gain_share(controls, 'majority_vote')}; the server's 60 labelled "
        "questions alone, without "
        f"any client, {_gain_share(controls, 'dp_sft')} by SFT."
    )
    clean = errors.values("fedgrpo-0", "gain") if errors is not None else {}
    without = (
        f": with a corpus without mistakes FedGRPO's gain is {said(mean_of(clean), signed=True)}, {len(clean)} seeds"
        if clean
        else ""
    )
    yield (
        f"**It does not show** more than that scalars carry what experts know about planted mistakes{without}. All "
        "rows, and what is "
        "not finished: [docs/evidence.md](docs/evidence.md)."
    )


# ---------------------------------------------------------------------------------------- bytes, dropout, what else


def _overhead(tables: Tables) -> Iterator[str]:
    results = tables.get("overhead")
    if results is None:
        yield NOT_RUN
        return
    yield (
        f"The tiny job (`fedsim compare overhead`, {_made(results, *results.planned)}; greedy accuracy on 900 test "
        "questions, start "
        f"{_start(results)}; bytes are medians). Learning rates were chosen on a larger job, not by a grid here "
        "(docs/log.md)."
    )
    yield from ("", "![Accuracy against bytes and virtual time, by method](docs/evidence_overhead.png)", "")
    yield from head(
        "method",
        "leaves a client",
        "greedy, end",
        "minus FedGRPO",
        "uplink, paper's account",
        "wire, up",
        "wire, down",
    )
    paper = Column("", lambda found, name: _median_bytes(found.values(name, "bytes", "paper", "uplink")))
    for name in results.planned:
        if results.by_name.get(name):
            less = difference(results.values(name, "end"), results.values("fedgrpo", "end"))
            yield row(
                [
                    title(name),
                    LEAVES.cell(results, name),
                    _end(results, name),
                    "" if name == "fedgrpo" else said(less, signed=True),
                    paper.cell(results, name),
                    UP.cell(results, name),
                    DOWN.cell(results, name),
                ]
            )


def _median_bytes(values: Mapping[int, float]) -> str:
    found = percentile(list(values.values()), 50)
    return "" if found is None else format_bytes(found)


def _dropout(tables: Tables) -> Iterator[str]:
    results = tables.get("dropout")
    policy = POLICIES[0]
    lost = {} if results is None else {level: lost_share(results, level, policy) for level in LEVELS}
    known = {level: one for level, one in lost.items() if one["mean"] is not None}
    if results is None or not known:
        yield NOT_RUN
        return
    yield (
        f"With real models (`fedsim stress dropout/cost`, {_made(results, *results.planned)}; equal virtual time), "
        f"policy `{policy}`, of a "
        f"gain of {said(mean_of(results.values(f'none {policy}', 'gain')))} is lost, as a share of it: "
        + "; ".join(f"{level.replace('-', ' ')} {said(one)}" for level, one in known.items())
        + " (*correlated*: the owners of one domain give up most often). Other policies, and why rewards were lost: "
        "[docs/dropout.md](docs/dropout.md)."
    )
    yield from ("", "![Lost share of the gain by level of dropout and straggler policy](docs/dropout.png)")


def _privacy(tables: Tables) -> Iterator[str]:
    results = tables.get("privacy")
    if results is None or not results.by_name.get("likelihood"):
        yield f"What protection costs: {NOT_RUN}"
        return
    guarded = {
        "flip-0.3": "30% of rewards flipped",
        "gaussian-0.5": "Gaussian noise of .5",
        "dp_evaluators": "evaluators trained with DP-SGD",
    }
    less = [
        f"{label} {_minus_of(results, name, 'likelihood')}"
        for name, label in guarded.items()
        if results.by_name.get(name)
    ]
    yield (
        "**What protection costs** (the tiny job, half of the questions with a trusted answer at one client; `fedsim "
        "compare privacy`, "
        f"{_made(results, *results.planned)}): FedGRPO ends at {_end(results, 'likelihood')} without any; differences "
        "from it: "
        f"{'; '.join(less) or 'not measured'}."
    )
    called = {
        "likelihood": "FedGRPO",
        **{name: f"FedGRPO with {label}" for name, label in guarded.items()},
        "distil": "distil",
        "fedpetuning": "FedPETuning",
        "synthetic": "DPSDA-FL without protection",
    }
    attacks = [attack for name, label in called.items() for attack in _strongest(results, name, label)]
    if attacks:
        yield f"The strongest attack on training rows there: {'; '.join(attacks)}."


def _hostile(tables: Tables) -> Iterator[str]:
    results = tables.get("byzantine")
    if results is None:
        yield f"Hostile experts: {NOT_RUN}"
        return
    rules, attacks = ("mean", "median", "reliability"), ("random_2", "inverted_2", "colluding_2")
    kept = [
        f"{rule} "
        + ", ".join(
            f"{attack.removesuffix('_2')} "
            f"{said(share(results.values(f'{rule} {attack}', 'gain'), results.values(f'{rule} excluded_2', 'gain')))}"
            for attack in attacks
        )
        for rule in rules
    ]
    yield (
        f"**Two of eight experts hostile** (the tiny job, every domain at five clients, `fedsim stress byzantine/attacks`, "
        f"{_made(results, *results.planned)}); share of the gain kept, of that without those two, by rule of fusion: "
        f"{'; '.join(kept)}."
    )


PARTS: Mapping[str, Callable[[Tables], Iterator[str]]] = {
    "first": _first,
    "skills": _skills_table,
    "tiny": _tiny,
    "overhead": _overhead,
    "dropout": _dropout,
    "privacy": _privacy,
    "hostile": _hostile,
}

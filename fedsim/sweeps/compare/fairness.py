"""What a comparison must say of variants that are unlike beside what they compare, or alike where they seem to differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

MOST_UNLIKE = 0.05


def unlike_requests(summaries: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Requests per update against the first variant, where one of its protocol asks over 5% more or fewer.

    Other protocols count other things (a request may be a question, or a whole round), so nothing is said of them.
    """
    first, runs = next(iter(summaries.items()))
    rates = {
        name: rate
        for name, found in summaries.items()
        if found[0]["protocol"] == runs[0]["protocol"] and (rate := _requests_per_update(found))
    }
    if first not in rates:
        return
    ratios = {name: rate / rates[first] for name, rate in rates.items() if name != first}
    if any(abs(ratio - 1) > MOST_UNLIKE for ratio in ratios.values()):
        told = "; ".join(f"{name} {ratio:.2f} times" for name, ratio in ratios.items())
        yield f"Not the same number of requests: per update, {told} those of {first} ({rates[first]:.1f})."


def _requests_per_update(summaries: Sequence[Mapping[str, Any]]) -> float | None:
    """Requests to clients over the updates of all runs; None where either is not recorded, or there is none."""
    requests = sum(one.get("requests", {}).get("total", 0) for one in summaries)
    updates = sum(one.get("updates") or 0 for one in summaries)
    return requests / updates if requests and updates else None


def alike_losses(scenarios: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Pairs of variants that differ in nothing but Dr. GRPO's loss against the token mean, which are one up to a number.

    `fedsim.rl.losses.length_weights`: both sum over tokens alike, over R max_tokens the one and over sum_i |o_i| the other. A
    learning rate of its own, as tuning gives it, does not make them more unlike.
    """
    for (one, ours), (other, theirs) in combinations(scenarios.items(), 2):
        losses = {_length_mean(ours), _length_mean(theirs)}
        if losses == {"dr_grpo", "tokens"} and _but_the_loss(ours) == _but_the_loss(theirs):
            yield (
                f"{one} and {other} differ in a scalar alone: the loss dr_grpo is the token mean times "
                "sum |o| / (R max_new_tokens), a number for each update, which AdamW's steps hardly see."
            )


def _length_mean(scenario: Mapping[str, Any]) -> str | None:
    loss: str | None = scenario["protocol"].get("loss")
    mean: str | None = scenario["protocol"].get("loss_mean")
    return mean if loss == "grpo" else loss


def _but_the_loss(scenario: Mapping[str, Any]) -> dict[str, Any]:
    apart = ("loss", "loss_mean", "learning_rate", "record_ratios")
    protocol = {key: value for key, value in scenario["protocol"].items() if key not in apart}
    return {**scenario, "protocol": protocol}

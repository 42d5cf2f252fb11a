"""Scoring with the clients' own models: batched across clients, questions and duplicates, against a request at a time.

The load is what the quick start's server samples at its first policy version: 128 questions x 8 candidates of the pool, each
question scored by 2 of the 8 clients: 256 requests, 2048 scores. A score is a model's likelihood of candidate and end token.

Ours: every request is announced, then every score is asked for, as a run does it. The naive loop scores a request by one
plain ``transformers`` forward pass over its 8 candidates, each with its question, padded on the right; with a pass per
candidate it takes the time that is shown beside it. Both read remembered token ids. The dense batch holds as many tokens as
there are different ones to compute (of every client: its questions once, different candidates once) in rows of equal length:
one ``transformers`` pass per client without mask, padding or cache, which scores nothing that anybody asked for; it is what
the same arithmetic costs at best.

Asserted: all scores agree with the naive loop up to ``TOLERANCE``, and have the same bits whether they were computed alone,
in the opposite order, or all together.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.ledger import Claim, paired, report
from benchmarks.quick_start import NUM_CLIENTS, quick_start
from fedsim.models.interfaces import Draw
from fedsim.models.real.evaluator import ModelEvaluator, in_company
from fedsim.models.real.tokens import Ids

NAME, TITLE = "scoring", "Scoring with the clients' models: batched against a request at a time"
QUESTIONS, EXPERTS = 128, 2
TOLERANCE = 1e-5

Request = tuple[int, str, tuple[str, ...]]
"""Client, question, candidates."""


def requests() -> list[Request]:
    """The load, in the order in which groups were sampled."""
    start = quick_start()
    draws = [Draw(i, question) for i, question in enumerate(start.data.pool[:QUESTIONS])]
    experts = np.random.default_rng(11)
    return [
        (int(client), group.draw.question.text, tuple(group.texts))
        for group in start.models.policy.sample(draws)
        for client in sorted(experts.choice(NUM_CLIENTS, EXPERTS, replace=False))
    ]


def batched(load: Sequence[Request]) -> list[list[float]]:
    """Our way: announce everything, then ask."""
    evaluators = in_company(fresh_evaluators())
    for client, question, candidates in load:
        evaluators[client].expect(question, candidates)
    return [evaluators[client].likelihood(question, candidates) for client, question, candidates in load]


def alone(load: Sequence[Request]) -> list[list[float]]:
    """Our way without any company: every request by a model that runs by itself and knows of no other request."""
    return [
        fresh_evaluators()[client].likelihood(question, candidates) for client, question, candidates in load
    ]


def fresh_evaluators() -> list[ModelEvaluator]:
    start = quick_start()
    return [ModelEvaluator(kept.language, start.config.max_new_tokens) for kept in start.models.evaluators]


@torch.no_grad()
def naive(load: Sequence[Request], at_once: int = 8) -> list[list[float]]:
    """A plain forward pass for every ``at_once`` candidates of a request."""
    found = []
    for client, question, candidates in load:
        scores: list[float] = []
        for first in range(0, len(candidates), at_once):
            scores += plain_likelihoods(client, question, candidates[first : first + at_once])
        found.append(scores)
    return found


def plain_likelihoods(client: int, question: str, candidates: Sequence[str]) -> list[float]:
    language = quick_start().models.evaluators[client].language
    prompt = language.prompt_ids(question)
    answers = [language.answer_ids(candidate) for candidate in candidates]
    width = max(map(len, answers))
    ids = torch.tensor([[*prompt, *ids, *([language.end_id] * (width - len(ids)))] for ids in answers])
    lengths = torch.tensor([len(prompt) + len(ids) for ids in answers])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    logits = language.network(input_ids=ids, attention_mask=mask).logits[:, len(prompt) - 1 : -1]
    log_probs = token_log_probs(logits, ids[:, len(prompt) :]) * mask[:, len(prompt) :]
    return [min(1.0, math.exp(total)) for total in log_probs.double().sum(-1).tolist()]


def token_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def dense_batches(load: Sequence[Request]) -> dict[int, Tensor]:
    """Per client as many token ids ``[rows, T]`` as its different questions and candidates have."""
    batches = {}
    for client in sorted({client for client, _, _ in load}):
        language = quick_start().models.evaluators[client].language
        prompts: dict[str, Ids] = {q: language.prompt_ids(q) for c, q, _ in load if c == client}
        pairs = {(q, text) for c, q, texts in load if c == client for text in texts}
        tokens = [token for ids in prompts.values() for token in ids]
        tokens += [token for _, text in sorted(pairs) for token in language.answer_ids(text)]
        width = round(sum(map(len, prompts.values())) / len(prompts))
        rows = math.ceil(len(tokens) / width)
        batches[client] = torch.tensor((tokens * 2)[: rows * width]).view(rows, width)
    return batches


@torch.no_grad()
def dense(batches: dict[int, Tensor]) -> float:
    """One pass per client over as many tokens."""
    total = 0.0
    for client, ids in batches.items():
        logits = (
            quick_start().models.evaluators[client].language.network(input_ids=ids, use_cache=False).logits
        )
        total += float(token_log_probs(logits[:, :-1], ids[:, 1:]).sum())
    return total


def check(load: Sequence[Request]) -> float:
    """Greatest difference between our scores and the naive loop's.

    Raises:
        AssertionError: a score is another one than the naive loop's, or depends on how it was batched.
    """
    together = batched(load)
    apart = np.abs(np.array(together) - np.array(naive(load))).max()
    assert apart <= TOLERANCE, f"a score differs from the naive loop's by {apart:.1e}"
    some = load[:: len(load) // 32]
    assert alone(some) == [together[load.index(request)] for request in some]
    assert batched(load[::-1]) == together[::-1]
    return float(apart)


def main() -> int:
    logging.disable(logging.WARNING)
    load = requests()
    apart = check(load)
    batches = dense_batches(load)
    by_request = paired(lambda: naive(load), lambda: batched(load))
    by_candidate = paired(lambda: naive(load, 1), lambda: batched(load), rounds=1)
    at_best = paired(lambda: batched(load), lambda: dense(batches), rounds=25)
    num_scores = sum(len(candidates) for _, _, candidates in load)
    num_tokens = sum(ids.numel() for ids in batches.values())
    claims = [
        Claim("a transformers pass per request / ours", by_request.ratio, 5.0, note=by_request.spread),
        Claim("a transformers pass per candidate / ours", by_candidate.ratio, note="1 pair"),
        Claim("ours / one dense batch per client of the same tokens", at_best.ratio, 2.0, "at most", note=at_best.spread),
        Claim("scores a second", num_scores / min(at_best.first_s), unit="/s", note="the fastest round"),
    ]  # fmt: skip
    distinct = len({(client, q, text) for client, q, texts in load for text in texts})
    facts = {
        "Work": f"{len(load)} requests, {num_scores} scores, of which {distinct} are of different (client, question, "
        f"candidate); {num_tokens:,} different tokens.",
        "Equality": f"The greatest difference from the naive loop is {apart:.1e} (float32; scores lie in [0, 1]); alone, in "
        "the opposite order and together all scores have the same bits.",
    }
    return report(NAME, TITLE, claims, facts)


if __name__ == "__main__":
    raise SystemExit(main())

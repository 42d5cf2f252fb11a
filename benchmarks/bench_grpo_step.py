"""One GRPO step against TRL's GRPOTrainer: sample, score and update on the quick start's server model and load.

96 questions x 8 candidates x at most 8 tokens; float32, one thread, AdamW without weight decay, gradients clipped at norm 1,
loss = clipped surrogate summed over all tokens over their number (TRL's ``dapo``), no KL, one optimiser step on everything.

TRL's side is a ``GRPOTrainer`` as it stands (transformers' ``generate``, its fused output layer, its own loss), timed from
``on_step_begin`` to ``on_step_end`` of its own training loop. Its settings are the fastest that we found for one core: no
gradient checkpointing, no mixed precision, no logging, no saving, and its micro-batch is the fastest of ``MICRO_BATCHES``,
found in this very run. On policy neither side computes log-probabilities of the policy that sampled by themselves.

Our side is ``LanguagePolicy.sample``, rewards, ``advantages`` and ``LanguagePolicy.update``, as protocols call them. In the
claims every candidate is sampled, measured and trained by itself (``EveryCandidate``), and no group has rewards of one value,
so none is left out; the figures with equal candidates merged stand beside them.

Both sides do the same work, and the benchmark asserts it. Rewards are the same seeded zeros and ones, never constant in a
group. TRL samples (softmax, multinomial) from logits that leave it only the tokens that we sampled, so that both train on
the same tokens, and after the last step both networks must have the same weights up to ``TOLERANCE`` of the distance that
they moved. A candidate that runs into the limit is masked on both sides.

The ``full`` load shows the worst case for us, without a bound: the end token is forbidden in sampling, so that all 768
candidates have 8 tokens and are trained. Then nothing ends early, and with questions of 8 tokens there is little to share.
"""

from __future__ import annotations

import contextlib
import cProfile
import importlib.util
import io
import logging
import pstats
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TrainerCallback

from benchmarks.ledger import Claim, Paired, report, wall_s
from benchmarks.quick_start import quick_start
from fedsim.models.interfaces import CandidateGroup, Draw
from fedsim.models.real.language import LanguageModel
from fedsim.models.real.policy import LanguagePolicy
from fedsim.models.real.tokens import Ids
from fedsim.rl.advantages import advantages

NAME, TITLE = "grpo_step", "GRPO step: sample, score, update, against TRL's GRPOTrainer"
QUESTIONS, GROUP, TOKENS = 96, 8, 8
MICRO_BATCHES = (768, 192)
ROUNDS = 5
RATE = 3e-4
TOLERANCE = 1e-2
END_FORBIDDEN = -1e9  # minus infinity would make an entropy NaN


class EveryCandidate(LanguagePolicy):
    """A policy that trains every candidate by itself, equal ones too."""

    merges_equal = False


class Endless(LanguageModel):
    """A model that never ends an answer."""

    def logits(self, *arguments: Any, **keys: Any) -> Tensor:
        logits = super().logits(*arguments, **keys).clone()
        logits[..., self.end_id] = END_FORBIDDEN
        return logits


def rewards_of(round_index: int) -> np.ndarray:
    """Zeros and ones ``[96, 8]``, never constant in a row."""
    draws = np.random.default_rng([7, round_index])
    rewards = draws.integers(0, 2, (QUESTIONS, GROUP)).astype(float)
    rewards[:, 0], rewards[:, 1] = 0.0, 1.0
    return draws.permuted(rewards, axis=1)


@dataclass
class Ours:
    """Our side of one load, and what it sampled in each round."""

    policy: LanguagePolicy
    endless: bool

    def __post_init__(self) -> None:
        self.sampled: list[list[Ids]] = []
        self.trained: list[int] = []

    def step(self, round_index: int) -> None:
        groups = self.policy.sample(draws(round_index))
        if self.endless:  # every candidate runs into the limit, and counts all the same
            groups = [as_ended(group) for group in groups]
        rewards = rewards_of(round_index)
        gains = [advantages(row[None], divide_by_std=False) for row in rewards]
        self.note(groups)
        self.policy.update(groups, gains)

    def note(self, groups: Sequence[CandidateGroup]) -> None:
        kept = [self.policy.sampled_ids(group.draw.index) for group in groups]
        self.sampled.append([ids for group in kept for ids in group])
        self.trained.append(
            sum(c.num_tokens for group in groups for c in group.candidates if not c.truncated)
        )


def draws(round_index: int) -> list[Draw]:
    """The questions of a round, which no other round has."""
    pool = quick_start().data.pool
    first = round_index * QUESTIONS
    return [Draw(first + i, question) for i, question in enumerate(pool[first : first + QUESTIONS])]


def as_ended(group: CandidateGroup) -> CandidateGroup:
    return replace(group, candidates=tuple(replace(c, truncated=False) for c in group.candidates))


def ours(endless: bool, merging: bool) -> Ours:
    """Our side at the quick start's initial weights."""
    start = quick_start()
    live = start.models.policy.initial
    kind = Endless if endless else LanguageModel
    network = deepcopy(live.network).requires_grad_(True)
    config = start.config.model_copy(
        update={"learning_rate": RATE, "warmup_updates": 0, "group_size": GROUP, "max_new_tokens": TOKENS}
    )
    policy = (LanguagePolicy if merging else EveryCandidate)(
        kind(network, live.tokenizer, live.shapes), live, config, lambda given, truth: given in truth, start.seed, ()
    )  # fmt: skip
    return Ours(policy, endless)


class Forced(LogitsProcessor):
    """Leaves only the tokens that were sampled on the other side."""

    def __init__(self, answers: Sequence[Ids], end_id: int) -> None:
        rows = [[*ids, *([end_id] * (TOKENS - len(ids)))] for ids in answers]
        self.tokens = torch.tensor(rows)
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        wanted = self.tokens[:, self.step, None]
        self.step += 1
        return torch.full_like(scores, float("-inf")).scatter_(1, wanted, scores.gather(1, wanted))


class Trl:
    """TRL's side: a trainer whose steps are timed by its own callbacks.

    Args:
        answers: what is to be sampled in each round, row by row.
        endless: whether every answer runs to the limit and is trained all the same.
        micro_batch: rows that are back-propagated at once.
        between: called with the round outside of the timed stretch, before the step (0) and after it (1).
    """

    def __init__(
        self,
        answers: Sequence[Sequence[Ids]],
        endless: bool,
        micro_batch: int,
        between: Callable[[int, int], None] = lambda round_index, moment: None,
    ) -> None:
        import datasets
        from trl import GRPOConfig, GRPOTrainer

        live = quick_start().models.policy.initial
        self.network = _forced_network(deepcopy(live.network).requires_grad_(True))
        self.seconds: list[float] = []
        self.num_sampled: list[int] = []
        self.num_trained: list[int] = []
        self._answers, self._end_id = answers, live.end_id
        num_rounds, accumulated = len(answers), QUESTIONS * GROUP // micro_batch
        rows = [{"prompt": d.question.text} for r in range(num_rounds) for d in draws(r)]
        with tempfile.TemporaryDirectory() as folder:
            settings = GRPOConfig(
                output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False,
                per_device_train_batch_size=micro_batch, gradient_accumulation_steps=accumulated,
                num_generations=GROUP, max_completion_length=TOKENS, temperature=1.0, top_k=0, beta=0.0,
                loss_type="dapo", scale_rewards="none", epsilon=0.2, epsilon_high=0.3, num_iterations=1,
                mask_truncated_completions=not endless, learning_rate=RATE, lr_scheduler_type="constant",
                optim="adamw_torch", weight_decay=0.0, max_grad_norm=1.0, max_steps=num_rounds, shuffle_dataset=False,
                logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True, seed=0,
            )  # fmt: skip
            self._trainer = GRPOTrainer(
                model=self.network, reward_funcs=self._rewards, args=settings, processing_class=live.tokenizer,
                train_dataset=datasets.Dataset.from_list(rows), callbacks=[_Stopwatch(self, between)],
            )  # fmt: skip
            with contextlib.redirect_stdout(io.StringIO()):  # a table of metrics at its end
                self._trainer.train()

    def begin(self, round_index: int) -> None:
        self.network.processors = LogitsProcessorList([Forced(self._answers[round_index], self._end_id)])

    def _rewards(self, prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        round_index = len(self.seconds)
        assert prompts[::GROUP] == [draw.question.text for draw in draws(round_index)]
        assert [tuple(ids) for ids in completion_ids] == list(self._answers[round_index])
        self.num_sampled.append(sum(map(len, completion_ids)))
        truncated = self._trainer.args.mask_truncated_completions
        self.num_trained.append(
            sum(len(ids) for ids in completion_ids if not truncated or ids[-1] == self._end_id)
        )
        return [float(reward) for reward in rewards_of(round_index).ravel()]


class _Stopwatch(TrainerCallback):
    def __init__(self, side: Trl, between: Callable[[int, int], None]) -> None:
        self._side, self._between, self._begun = side, between, 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._between(len(self._side.seconds), 0)
        self._side.begin(len(self._side.seconds))
        self._begun = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._side.seconds.append(time.perf_counter() - self._begun)
        self._between(len(self._side.seconds) - 1, 1)


def _forced_network(network: Any) -> Any:
    """The network with a ``generate`` that hands on its ``processors``, which TRL's settings have no place for."""

    class Forcible(type(network)):  # type: ignore[misc]
        processors: LogitsProcessorList

        def generate(self, *arguments: Any, **keys: Any) -> Any:
            return super().generate(*arguments, logits_processor=self.processors, **keys)

    network.__class__ = Forcible
    return network


@dataclass(frozen=True)
class Measured:
    """One load: our seconds over TRL's, pair by pair, the tokens of all rounds, and how far the weights came apart."""

    pairs: Paired
    num_tokens: int
    num_trained: int
    apart: float


def measure(endless: bool, merging: bool, micro_batch: int, rounds: int = ROUNDS) -> Measured:
    """Time both sides in turn in TRL's own training loop; the first round is a warm-up."""
    rehearsal, timed = ours(endless, merging), ours(endless, merging)
    for round_index in range(rounds + 1):
        rehearsal.step(round_index)
    seconds: list[float] = []

    def between(round_index: int, moment: int) -> None:
        if moment == round_index % 2:
            seconds.append(wall_s(lambda: timed.step(round_index)))

    other = Trl(rehearsal.sampled, endless, micro_batch, between)
    assert timed.sampled == rehearsal.sampled, "our side did not repeat itself"
    assert other.num_sampled == [sum(map(len, answers)) for answers in timed.sampled]
    assert other.num_trained == timed.trained, "the two sides did not train on the same number of tokens"
    return Measured(
        Paired(tuple(seconds[1:]), tuple(other.seconds[1:])),
        sum(other.num_sampled[1:]),
        sum(other.num_trained[1:]),
        apart(timed.policy.language.network, other.network),
    )


def apart(ours: Any, theirs: Any) -> float:
    """Distance between the two sides' weights over the distance that they moved."""
    start = quick_start().models.policy.initial.network.state_dict()
    differing = moved = 0.0
    for name, weight in ours.state_dict().items():
        differing += float((weight - theirs.state_dict()[name]).square().sum())
        moved += float((weight - start[name]).square().sum())
    return (differing / moved) ** 0.5


def fastest_micro_batch() -> tuple[int, str]:
    """TRL's fastest micro-batch on this machine, and the seconds of a step with each."""
    sampler = ours(endless=False, merging=False)
    for round_index in range(3):
        sampler.step(round_index)
    seconds = {size: min(Trl(sampler.sampled, False, size).seconds[1:]) for size in MICRO_BATCHES}
    best = min(seconds, key=lambda size: seconds[size])
    return best, ", ".join(f"{size} rows {took:.2f} s" for size, took in seconds.items())


def where_the_time_goes(rounds: int = 4) -> tuple[str, float]:
    """Shares of our step, from a profile in which Python's own part is a little too large; and its seconds without profile."""
    side = ours(endless=False, merging=False)
    side.step(0)
    step_s = statistics.median(wall_s(lambda r=r: side.step(r)) for r in range(1, rounds + 1))  # type: ignore[misc]
    profile = cProfile.Profile()
    with profile:
        for round_index in range(rounds + 1, 2 * rounds + 1):
            side.step(round_index)
    found: dict[str, float] = {}
    for (file, _, name), (_, _, _, total, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        key = f"{Path(file).stem}.{name}"
        found[key] = found.get(key, 0.0) + total
    whole = found["bench_grpo_step.step"]
    parts = {
        "sampling": found["sampling.sample_answers"],
        "the questions' prefixes for sampling": found["policy.sample"] - found["sampling.sample_answers"],
        "forward": found["policy._backward"] - found["graph._engine_run_backward"],
        "backward": found["graph._engine_run_backward"],
        "optimiser with clipping": found["optimizer.wrapper"] + found["clip_grad.clip_grad_norm_"],
    }
    parts["the rest (rewards, advantages, rows, texts)"] = whole - sum(parts.values())
    return ", ".join(f"{name} {part / whole:.0%}" for name, part in parts.items()), step_s


def floor_s(num_sampled: int, num_prompt: int) -> tuple[float, str]:
    """Least seconds of a step by the roofline: arithmetic without padding over peak, or bytes over bandwidth.

    Sampling runs every question once and every sampled token but the last; the update runs the same forward once more and
    backward at twice the price. Bytes are those of the
    weights, once per pass and decoding step, and of AdamW's state; activations are left out, so the floor is a low one.
    """
    config = quick_start().models.policy.language.network.config
    h, i, layers, v = (
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
        config.vocab_size,
    )
    inputs = num_prompt + num_sampled - QUESTIONS * GROUP
    trunk_flop = 2 * layers * (4 * h * h + 3 * h * i) * inputs
    head_flop = 2 * h * v * num_sampled
    flop = 4 * (trunk_flop + head_flop)
    num_weights = layers * (4 * h * h + 3 * h * i) + v * h
    moved_bytes = 4 * num_weights * (TOKENS + 2 + 1 + 7)
    a = torch.randn(1024, 1024)
    peak_flop_per_s = 2 * 1024**3 / min(wall_s(lambda: a @ a) for _ in range(20))
    block = torch.zeros(2**26)
    copy = torch.zeros(2**26)
    bytes_per_s = 2 * 4 * 2**26 / min(wall_s(lambda: copy.copy_(block)) for _ in range(5))
    least = max(flop / peak_flop_per_s, moved_bytes / bytes_per_s)
    return least, (
        f"{flop / 1e9:.2f} GFLOP at a measured {peak_flop_per_s / 1e9:.0f} GFLOP/s are {flop / peak_flop_per_s * 1e3:.0f} ms; "
        f"{moved_bytes / 1e6:.0f} MB at a measured {bytes_per_s / 1e9:.1f} GB/s are {moved_bytes / bytes_per_s * 1e3:.1f} ms"
    )


def main() -> int:
    if importlib.util.find_spec("trl") is None:
        print("bench_grpo_step: TRL is not installed, so nothing was compared (pip install -e '.[bench]')")
        return 0
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    micro_batch, tried = fastest_micro_batch()
    plain = measure(endless=False, merging=False, micro_batch=micro_batch)
    merged = measure(endless=False, merging=True, micro_batch=micro_batch, rounds=3)
    full = measure(endless=True, merging=False, micro_batch=micro_batch, rounds=3)
    for found in (plain, merged):
        assert found.apart <= TOLERANCE, f"the two sides' weights came apart by {found.apart:.1e}"
    shares, step_s = where_the_time_goes()
    language = quick_start().models.policy.language
    num_prompt = sum(len(language.prompt_ids(draw.question.text)) for draw in draws(1))
    least_s, floor = floor_s(plain.num_tokens // ROUNDS, num_prompt)
    claims = [
        Claim("our step / TRL's, every candidate by itself", plain.pairs.ratio, 0.45, "at most", note=plain.pairs.spread),
        Claim("our step / TRL's, equal candidates merged", merged.pairs.ratio, 0.45, "at most", note=merged.pairs.spread),
        Claim("our step / TRL's, no answer ends early", full.pairs.ratio, note=full.pairs.spread),
        Claim("our step", statistics.median(plain.pairs.first_s), unit="s", note="every candidate by itself"),
        Claim("TRL's step", statistics.median(plain.pairs.second_s), unit="s", note=f"micro-batches of {micro_batch} rows"),
        Claim("our step / the roofline floor", step_s / least_s, note="with padding"),
    ]  # fmt: skip
    facts = {
        "Work": f"In {ROUNDS} steps both sides sampled {plain.num_tokens:,} tokens and trained {plain.num_trained:,}; after "
        f"them their weights differed by {plain.apart:.0e} of the distance that they had moved.",
        "TRL": f"version {version('trl')}; a step took, by micro-batch: {tried}.",
        "Where our time goes": f"{shares}.",
        "Floor": f"{floor}; our step, timed by itself, took {step_s * 1e3:.0f} ms.",
    }
    return report(NAME, TITLE, claims, facts)


if __name__ == "__main__":
    raise SystemExit(main())

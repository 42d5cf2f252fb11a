"""From work to seconds and joules: a roofline over the modelled model's architecture.

Work is counted in floating-point operations (a multiply-add is two) and bytes moved to or from memory. With N
the parameters that multiply (all but the input embedding), V h the output head, and attention ``4 L H d`` per
pair of (new token, visible token), for L layers of H heads of size d:

- forward, n new tokens after p cached ones: ``2 (N - V h) n + 2 V h (positions with logits) + 4 L H d (n p +
  n (n + 1) / 2)``
- decoding moves all weights once per step, whatever the number of rows, and each row's key-value cache once
- training costs three forwards (two of them backwards) plus the optimiser's traffic
- every pass costs ``step_overhead`` per layer, however few its tokens: kernels are launched and awaited. A prompt, a set of
  candidates and a batch of texts are one pass each, each further token is one, and a training step is three

Left out: norms, softmax, biases' additions and activations' traffic (together below a few percent), padding,
and whatever a runtime wastes beyond the two efficiencies of a profile.

References:
    Williams, Waterman, Patterson, Roofline, CACM 52 (2009); Kaplan et al., Scaling Laws (2020), table 1;
    Pope et al., Efficiently Scaling Transformer Inference (2022), section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from fedsim.sim import streams
from fedsim.sim.devices.architecture import ModelSpec
from fedsim.sim.devices.profile import DeviceProfile


@dataclass(frozen=True, slots=True)
class Work:
    """What one computation asks of a device: FLOP, bytes of memory traffic, and passes times layers. Works add up."""

    flop: float
    memory_bytes: float
    layer_passes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.flop + other.flop,
            self.memory_bytes + other.memory_bytes,
            self.layer_passes + other.layer_passes,
        )

    def times(self, number: float) -> Work:
        """The same so many times."""
        return Work(number * self.flop, number * self.memory_bytes, number * self.layer_passes)


NO_WORK = Work(0.0, 0.0)
_JITTER = streams.joined("compute-jitter")


def generate_work(
    spec: ModelSpec, prompt_tokens: Sequence[int], answer_tokens: Sequence[Sequence[int]]
) -> Work:
    """Answering a batch: every prompt is read once, then all rows are decoded side by side to the longest.

    A prompt's pass has logits at its last position, which give the first token of each of its answers: one of n tokens takes
    n - 1 steps. Step j reads all weights once and, in each row, the cache of ``prompt + j`` tokens (its own token's write is
    counted there).

    Args:
        spec: the model.
        prompt_tokens: [Q] tokens of each prompt.
        answer_tokens: [Q][G] tokens of each answer; a row that has ended costs nothing more.
    """
    if not any(prompt_tokens):
        return NO_WORK
    longest = max((n for answers in answer_tokens for n in answers), default=0)
    passes = 1 + max(longest - 1, 0)
    flop = sum(_forward_flop(spec, prompt, 0, 1) for prompt in prompt_tokens)
    cached = sum(prompt_tokens)
    for prompt, answers in zip(prompt_tokens, answer_tokens, strict=True):
        for num_tokens in answers:
            steps = max(num_tokens - 1, 0)
            flop += _forward_flop(spec, steps, prompt, steps)
            cached += steps * prompt + steps * (steps + 1) // 2
    return Work(flop, passes * spec.weight_bytes + cached * spec.kv_bytes_per_token, passes * spec.num_layers)


def score_work(spec: ModelSpec, prompt_tokens: int, candidate_tokens: Sequence[int]) -> Work:
    """The likelihood of each candidate given one prompt: one pass in which the prompt's cache is shared.

    The prompt is run once, every candidate's tokens look at it and at themselves, and there are logits for
    each candidate token.
    """
    return _score_work(spec, prompt_tokens, tuple(candidate_tokens))


@lru_cache(maxsize=4096)  # every expert of a group is asked to score the same candidates
def _score_work(spec: ModelSpec, prompt_tokens: int, candidate_tokens: tuple[int, ...]) -> Work:
    total = sum(candidate_tokens)
    if not total:
        return NO_WORK
    flop = _forward_flop(spec, prompt_tokens, 0, 0)
    flop += sum(_forward_flop(spec, n, prompt_tokens, n) for n in candidate_tokens)
    memory_bytes = spec.weight_bytes + (prompt_tokens + total) * spec.kv_bytes_per_token
    return Work(flop, memory_bytes, spec.num_layers)


def embedding_work(spec: ModelSpec, text_tokens: Sequence[int]) -> Work:
    """phi(x) of a batch of texts: one forward pass without logits and without keeping a cache; a text sees only itself."""
    if not any(text_tokens):
        return NO_WORK
    flop = sum(_forward_flop(spec, tokens, 0, 0) for tokens in text_tokens)
    return Work(flop, spec.bytes_per_parameter * spec.block_parameters, spec.num_layers)


def training_work(
    spec: ModelSpec, tokens: int | Sequence[int], optimiser_bytes_per_parameter: float = 24.0
) -> Work:
    """One optimiser step with logits at every position.

    FLOP: three forwards. Traffic: weights read forwards and backwards, gradients written and read, and the
    optimiser's state; 24 bytes are AdamW's: master weight and two moments in fp32, each read and written.

    Args:
        spec: the model.
        tokens: length of each row; or only the total, which leaves attention out (as a share of the FLOP it
            is about row length / (12 hidden)).
        optimiser_bytes_per_parameter: traffic of the optimiser's state per parameter.
    """
    if isinstance(tokens, int):
        forward = tokens * spec.flop_per_token
    else:  # the sum of the rows' ``_forward_flop(spec, row, 0, row)``, in whole numbers
        pairs = sum([row * (row + 1) // 2 for row in tokens])
        forward = sum(tokens) * spec.flop_per_token + spec.attention_flop_per_pair * pairs
    if not forward:
        return NO_WORK
    per_parameter = 4 * spec.bytes_per_parameter + optimiser_bytes_per_parameter
    return Work(3 * forward, per_parameter * spec.num_parameters, 3 * spec.num_layers)


def duration_s(profile: DeviceProfile, work: Work, jitter: float = 1.0) -> float:
    """Roofline time: ``overhead + jitter (max(flop / (peak e_c), bytes / (bandwidth e_m)) + step_overhead layer_passes)``."""
    compute_s = work.flop / (profile.peak_flop_per_s * profile.compute_efficiency)
    memory_s = work.memory_bytes / (profile.memory_bytes_per_s * profile.memory_efficiency)
    return profile.overhead_s + jitter * (
        max(compute_s, memory_s) + profile.step_overhead_s * work.layer_passes
    )


def compute_jitter(profile: DeviceProfile, seed: int, key: tuple[streams.Part, ...]) -> float:
    """This computation's jitter factor: a lognormal keyed draw of mean 1, for duration_s."""
    return streams.lognormal(profile.compute_jitter, seed, _JITTER, *key)


def compute_energy_j(profile: DeviceProfile, busy_s: float) -> float:
    """Energy of computing: ``power_active busy_s`` (idle power is not charged to tasks)."""
    return profile.power_active_w * busy_s


def radio_energy_j(profile: DeviceProfile, up_bytes: float, down_bytes: float) -> float:
    """Energy of the device's radio for bytes on the wire, either way."""
    return profile.radio_up_j_per_byte * up_bytes + profile.radio_down_j_per_byte * down_bytes


def _forward_flop(spec: ModelSpec, tokens: int, past: int, positions: int) -> int:
    """FLOP of running ``tokens`` tokens after ``past`` cached ones, with logits at some positions."""
    pairs = tokens * past + tokens * (tokens + 1) // 2
    linear = 2 * spec.block_parameters * tokens + 2 * spec.head_parameters * positions
    return linear + spec.attention_flop_per_pair * pairs

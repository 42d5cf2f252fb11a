"""Work, roofline time and energy against digits worked by hand."""

import dataclasses
import math
import statistics

import pytest

from fedsim.sim.devices.architecture import ModelSpec, architecture
from fedsim.sim.devices.config import ServerConfig
from fedsim.sim.devices.cost import (
    NO_WORK,
    Work,
    compute_energy_j,
    compute_jitter,
    duration_s,
    embedding_work,
    generate_work,
    radio_energy_j,
    score_work,
    training_work,
)
from fedsim.sim.devices.population import server_profile

# 2 layers, hidden 4, 2 heads of size 2, 1 key-value head, ffn 3, vocabulary 5, tied:
# a layer has 4*4 (q) + 2*4*2 (k, v) + 4*4 (o) + 3*4*3 (mlp) + 2*4 (norms) = 92; blocks 2*92 + 4 = 188.
# The head has 20.
TINY = ModelSpec(2, 4, 2, 1, 2, 3, 5, tied=True)
PROFILE = dataclasses.replace(
    server_profile(ServerConfig()),
    peak_flop_per_s=1000.0,
    memory_bytes_per_s=100.0,
    compute_efficiency=0.5,
    memory_efficiency=0.8,
    overhead_s=0.25,
    step_overhead_s=0.0,
)


def test_reading_a_prompt_by_hand():
    # 3 tokens: 2*188*3 linear, 2*20 logits at one position, 32 * (1 + 2 + 3) attention; 2*208 weights, 3*16
    # cache; one pass through 2 layers. The prompt's pass gives the first token.
    assert generate_work(TINY, [3], [[1] * 5]) == Work(1128 + 40 + 192, 416 + 48, 2)
    assert generate_work(TINY, [0], [[]]) == NO_WORK


def test_decoding_by_hand():
    # 3 new tokens after 4: two steps with contexts 5 and 6; per row 2*(376 + 40) + 32*11, cache 16*11.
    prompt = generate_work(TINY, [4], [[1]])
    assert generate_work(TINY, [4], [[3]]) == prompt + Work(832 + 352, 2 * 416 + 176, 2 * 2)
    assert generate_work(TINY, [4], [[3] * 5]) == prompt + Work(5 * (832 + 352), 2 * 416 + 5 * 176, 2 * 2)


def test_scoring_by_hand():
    # Prompt 2 (no logits): 752 + 32*3. Candidates of 1 and 2 tokens: 376 + 40 + 32*(2+1); 752 + 80 +
    # 32*(4+3).
    assert score_work(TINY, 2, [1, 2]) == Work((752 + 96) + (416 + 96) + (832 + 224), 416 + 5 * 16, 2)
    assert score_work(TINY, 2, []) == NO_WORK


def test_training_by_hand():
    # One row of 2 tokens: forward 2*376 + 2*40 + 32*3 = 928; traffic (4*2 + 24) bytes for each of 208
    # parameters.
    assert training_work(TINY, [2]) == Work(3 * 928, 32 * 208, 3 * 2)
    assert training_work(TINY, 2) == Work(3 * 832, 32 * 208, 3 * 2)  # the total alone leaves attention out
    assert training_work(TINY, []) == training_work(TINY, 0) == NO_WORK


def test_embedding_needs_no_head():
    assert embedding_work(TINY, [3]) == Work(1128 + 192, 2 * 188, 2)
    assert embedding_work(TINY, []) == NO_WORK


def test_texts_that_are_embedded_together_do_not_see_each_other():
    alone, both = embedding_work(TINY, [3]), embedding_work(TINY, [3, 3])
    assert both == Work(2 * alone.flop, alone.memory_bytes, 2)  # the weights are read once, in one pass


def test_a_batch_reads_the_weights_once_per_step_of_its_longest_row():
    apart = generate_work(TINY, [4], [[3, 7]]) + generate_work(TINY, [6], [[5]])
    together = generate_work(TINY, [4, 6], [[3, 7], [5]])
    assert together.flop == apart.flop
    assert apart.memory_bytes - together.memory_bytes == (7 + 5 - 7) * TINY.weight_bytes
    assert apart.layer_passes - together.layer_passes == (7 + 5 - 7) * 2


def test_roofline_takes_the_slower_of_arithmetic_and_memory():
    assert duration_s(PROFILE, Work(1000.0, 0.0)) == 2.25
    assert duration_s(PROFILE, Work(1000.0, 240.0)) == 0.25 + 240.0 / 80.0
    assert duration_s(PROFILE, Work(1000.0, 0.0), jitter=1.5) == 3.25


def test_every_layer_of_every_pass_costs_a_step_besides():
    launching = dataclasses.replace(PROFILE, step_overhead_s=0.5)
    assert duration_s(launching, Work(1000.0, 0.0, 4), jitter=1.5) == 0.25 + 1.5 * (2 + 4 * 0.5)
    assert duration_s(launching, NO_WORK) == 0.25
    # A batch and its longest row take as many steps; scoring takes one pass, however many the candidates.
    for shorter, longer in (([[3]], [[3, 2]]), ([[3, 2]], [[3, 3]])):
        assert generate_work(TINY, [4], shorter).layer_passes == generate_work(TINY, [4], longer).layer_passes
    assert score_work(TINY, 4, [3]).layer_passes == score_work(TINY, 4, [3] * 8).layer_passes == 2
    assert training_work(TINY, [4, 4]).times(1.5).layer_passes == 9


def test_decoding_is_bound_by_memory_and_a_long_prefill_by_arithmetic():
    spec, gpu = architecture("Qwen2.5-7B"), server_profile(ServerConfig())
    # 14 GB of weights at 0.8 * 2039 GB/s and 28 steps of 115 us: near 12 ms a token, as vLLM takes (84 tokens/s).
    read, answered = generate_work(spec, [100], [[1]]), generate_work(spec, [100], [[101]])
    decoding = answered + read.times(-1)
    assert (duration_s(gpu, decoding) - gpu.overhead_s) / 100 == pytest.approx(
        spec.weight_bytes / (0.8 * 2039e9) + 28 * 115e-6, rel=0.02
    )
    reading = generate_work(spec, [4000], [[1]])
    assert duration_s(gpu, reading) - gpu.overhead_s == pytest.approx(
        reading.flop / (0.3 * 312e12) + 28 * 115e-6
    )


def test_compute_jitter_is_keyed_and_has_mean_one():
    shaky = dataclasses.replace(PROFILE, compute_jitter=0.4)
    factors = [compute_jitter(shaky, 7, (1, k)) for k in range(4000)]
    assert compute_jitter(shaky, 7, (1, 3)) == factors[3] != compute_jitter(shaky, 7, (2, 3))
    assert abs(statistics.fmean(factors) - 1) < 3.3 * statistics.stdev(factors) / math.sqrt(4000)
    assert compute_jitter(dataclasses.replace(PROFILE, compute_jitter=0.0), 7, (1, 3)) == 1.0


def test_energy_is_power_times_time_and_radio_per_byte():
    phone = dataclasses.replace(
        PROFILE, power_active_w=5.0, power_idle_w=2.0, radio_up_j_per_byte=2e-6, radio_down_j_per_byte=1e-6
    )
    assert compute_energy_j(phone, 3.0) == 15.0
    assert radio_energy_j(phone, 1e6, 5e5) == pytest.approx(2.5)

"""How far the server believes each expert (rl/reliability.py): evidence by hand, and what it converges to."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedsim.rl.reliability import (
    Prior,
    after_audit,
    after_group,
    after_refusal,
    concordance,
    no_evidence,
    trust,
    voting_weights,
)
from fedsim.sim import streams

NAN = float("nan")
PRIOR = Prior(trust=0.75, strength=4.0, memory=0.5, audit_weight=2.0)


def test_nothing_known_is_the_prior():
    np.testing.assert_allclose(trust(no_evidence(3), PRIOR), 0.75)


def test_concordance_counts_the_pairs_that_both_experts_tell_apart():
    scores = np.array([[0.1, 0.2, 0.3], [0.0, 1.0, 0.0], [0.3, 0.2, 0.1], [0.5, 0.5, 0.5], [NAN, 0.1, 0.9]])
    alike = concordance(scores)
    # The second tells (0, 1) and (1, 2) apart: the first agrees on the former and not on the latter.
    assert alike[0, 1] == alike[1, 0] == 0.5
    assert alike[0, 2] == 0.0
    assert np.isnan(alike[3]).all()
    assert np.isnan(np.diag(alike)).all()
    assert (alike[0, 4], alike[1, 4], alike[2, 4]) == (1.0, 0.0, 0.0)


@given(
    scores=arrays(np.float64, (3, 4), elements=st.sampled_from([NAN, 0.0, 0.25, 0.5, 1.0])),
    scale=st.sampled_from([0.5, 2.0]),
)
def test_agreement_does_not_depend_on_scale_or_location(scores, scale):
    moved = scores.copy()
    moved[0] = scale * moved[0] + 0.25
    np.testing.assert_array_equal(concordance(moved), concordance(scores))


def test_one_group_by_hand():
    """0 and 1 agree, 2 contradicts both. All trusts are 0.75, so 0 gets 1/2 for and 1/2 against, 2 gets 0 and 1."""
    scores = np.array([[0.0, 1.0], [0.2, 0.3], [1.0, 0.0]])
    first = after_group(no_evidence(4), [0, 1, 2], scores, PRIOR)
    np.testing.assert_allclose(first.agreed, [0.5, 0.5, 0.0, 0.0])
    np.testing.assert_allclose(first.disagreed, [0.5, 0.5, 1.0, 0.0])
    believed = trust(first, PRIOR)
    np.testing.assert_allclose(believed, [3.5 / 5, 3.5 / 5, 3 / 5, 0.75])
    # The second group: old evidence halves, and the word of the third counts 0.6 against 0.7.
    second = after_group(first, [0, 1, 2], scores, PRIOR)
    np.testing.assert_allclose(second.agreed[:3], [0.25 + 0.7 / 1.3, 0.25 + 0.7 / 1.3, 0.0])
    np.testing.assert_allclose(second.disagreed[:3], [0.25 + 0.6 / 1.3, 0.25 + 0.6 / 1.3, 1.5])
    assert (first.agreed[0], second.agreed[3]) == (0.5, 0.0)  # evidence is never changed in place


def test_who_says_nothing_gets_no_evidence_and_keeps_what_there_was():
    before = after_group(no_evidence(2), [0, 1], np.array([[0.0, 1.0], [0.0, 1.0]]), PRIOR)
    for silent in ([0.5, 0.5], [NAN, NAN]):
        after = after_group(before, [0, 1], np.array([[0.0, 1.0], silent]), PRIOR)
        for one, other in zip(astuple(after), astuple(before), strict=True):
            np.testing.assert_array_equal(one, other)
    assert after_group(before, [], np.zeros((0, 2)), PRIOR) is before


def test_an_expert_that_is_alone_has_nobody_to_agree_with():
    known = after_group(no_evidence(3), [0, 1], np.array([[0.1, 0.2], [0.3, 0.4]]), PRIOR)
    alone = after_group(known, [1], np.array([[0.9, 0.1]]), PRIOR)
    np.testing.assert_array_equal(astuple(alone), astuple(known))


def test_an_audit_compares_right_with_wrong_candidates_and_a_tie_is_half():
    evidence = after_audit(no_evidence(2), 1, np.array([0.5, 0.5, 0.1]), [True, False, False])
    assert (evidence.right[1], evidence.wrong[1]) == (0.75, 0.25)
    # (4 x 0.75 + 2 x 0.75) / (4 + 2)
    np.testing.assert_allclose(trust(evidence, PRIOR), [0.75, 0.75])
    assert after_audit(evidence, 0, np.array([0.5, 0.1]), [True, True]) is evidence


def test_a_refused_reply_counts_against_whoever_sent_it():
    evidence = no_evidence(2)
    for _ in range(4):
        evidence = after_refusal(evidence, 0)
    np.testing.assert_allclose(trust(evidence, PRIOR), [3 / 8, 0.75])


def test_a_coin_and_whoever_is_worse_count_nothing_and_the_rest_by_their_log_odds():
    weights = voting_weights(np.array([0.1, 0.5, 0.8]))
    np.testing.assert_allclose(weights, [0.0, 0.0, math.log(4)], atol=1e-12)


def test_an_expert_stands_once_in_a_group():
    with pytest.raises(ValueError, match="one row per expert"):
        after_group(no_evidence(2), [1, 1], np.zeros((2, 2)), PRIOR)
    with pytest.raises(ValueError, match="one row per expert"):
        after_group(no_evidence(2), [0, 1], np.zeros((1, 2)), PRIOR)


def truthful(k, draw, accuracy=0.9):
    """Scores of four candidates of which the first is right: it stands on top with this probability."""
    row = [streams.uniform("noise", k, draw, g) for g in range(4)]
    if streams.uniform("luck", k, draw) < accuracy:
        row[0] = 1.5
    return row


def random_row(k, draw):
    return [streams.uniform("random", k, draw, g) for g in range(4)]


def inverted_row(k, draw):
    return [1.0 - score for score in truthful(k, draw)]


def colluding_row(k, draw):
    return [float(g == streams.integer("target", draw) % 4) for g in range(4)]


ATTACKS = {"random": random_row, "inverted": inverted_row, "colluding": colluding_row}


@pytest.mark.parametrize("attack", ATTACKS)
def test_two_bad_experts_of_five_end_below_all_good_ones(attack):
    prior, evidence = Prior(), no_evidence(5)
    for draw in range(200):
        rows = [truthful(k, draw) for k in range(3)] + [ATTACKS[attack](k, draw) for k in (3, 4)]
        evidence = after_group(evidence, range(5), np.array(rows), prior)
    believed = trust(evidence, prior)
    if attack == "colluding":
        # Two who always agree look better to each other than good ones do: agreement alone is no proof.
        assert believed[3:].min() > believed[:3].max() - 0.1
        for draw in range(20):
            for k in range(5):
                row = truthful(k, draw) if k < 3 else colluding_row(k, draw)
                evidence = after_audit(evidence, k, np.array(row), [True, False, False, False])
        believed = trust(evidence, prior)
    assert believed[:3].min() > believed[3:].max() + 0.05

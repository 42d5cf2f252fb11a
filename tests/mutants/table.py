"""Mistakes that somebody could make in fedsim, each with the tests that must see it; ``python -m tests.mutants`` makes them.

A mistake is an old text, which occurs exactly once in its file, and a new one. One that no test can see is called equivalent,
and says why.
"""

# ruff: noqa: E501  (lines of code stand here as they stand there)

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Attributes:
        area: what it is about.
        what: the mistake in a few words.
        file: where it is made.
        old: the text there; occurs once.
        new: what it becomes.
        tests: the files (or tests) of which at least one test must fail.
        equivalent: why no test can see it; empty: one must.
    """

    area: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    equivalent: str = ""

    def applied(self, text: str) -> str:
        """The file's text with the mistake.

        Raises:
            ValueError: the old text does not occur exactly once, or nothing would change.
        """
        if text.count(self.old) != 1 or self.old == self.new:
            raise ValueError(f"{self.file}: {self.what}: the old text occurs {text.count(self.old)} times")
        return text.replace(self.old, self.new)


NETWORK, DEVICES, FAULTS = "fedsim/sim/network", "fedsim/sim/devices", "fedsim/sim/faults"
BILLED = "tests/federation/test_billed_sizes.py"
SHARED, REPLAY, STRAGGLERS = (
    "fedsim/protocols/shared",
    "fedsim/experiment/replay",
    "fedsim/federation/stragglers",
)

LINK = [
    Mutant(
        "link", "what slow clients leave is not handed on", f"{NETWORK}/link.py",
        "self._fair_rate = left / self._shared_flows * RATE_UNIT_BYTES_PER_S",
        "self._fair_rate = capacity / self._num_open * RATE_UNIT_BYTES_PER_S",
        ("tests/sim/network/test_link.py",),
    ),
    Mutant(
        "link", "each flow of a client has its whole access rate", f"{NETWORK}/link.py",
        "client.own_rate = client.access * RATE_UNIT_BYTES_PER_S / client.num_open",
        "client.own_rate = client.access * RATE_UNIT_BYTES_PER_S",
        ("tests/sim/network/test_link.py",),
    ),
    Mutant(
        "link", "a flow that is cut has sent everything", f"{NETWORK}/link.py",
        "self._close(flow, sent_bytes)", "self._close(flow, flow.wire_bytes)",
        ("tests/sim/network/test_link.py",),
    ),
    Mutant(
        "link", "flows are not re-rated when the server's link changes", f"{NETWORK}/link.py",
        "if math.isfinite(capacity_bytes_per_s) else None\n        self._settle()",
        "if math.isfinite(capacity_bytes_per_s) else None\n        self._schedule()",
        ("tests/sim/network/test_link.py",),
    ),
    Mutant(
        "link", "flows are not re-rated when an access link changes", f"{NETWORK}/link.py",
        "self._take_out(client)\n                client.access = access\n", "self._take_out(client)\n",
        ("tests/sim/network/test_link.py",),
    ),
    Mutant(
        "link", "who comes to share forgets what it was served", f"{NETWORK}/link.py",
        "client.offset = client.served - self._common", "client.offset = -self._common",
        ("tests/sim/network/test_link.py",),
    ),
    Mutant(
        "link", "a tie goes to the flow that began last", f"{NETWORK}/link.py",
        'finished.sort(key=attrgetter("number"))', 'finished.sort(key=attrgetter("number"), reverse=True)',
        ("tests/sim/network/test_link.py",),
    ),
    Mutant(
        "link", "bytes of open flows are not carried yet", f"{NETWORK}/link.py",
        "return self._whole_bytes + (self._parts_bytes + open_bytes)", "return self._whole_bytes + self._parts_bytes",
        ("tests/sim/network/test_link.py",),
    ),
    Mutant(
        "link", "time passes at the new rate, not at the old one", f"{NETWORK}/link.py",
        "client.served + client.own_rate * (self._now_s - client.since_s)\n        return self._common",
        "client.own_rate * (self._now_s - client.since_s)\n        return self._common",
        ("tests/sim/network/test_link.py",),
    ),
    Mutant(
        "link", "jitter raises the mean rate", f"{NETWORK}/rates.py",
        "math.exp(sigma * level - 0.5 * sigma * sigma)", "math.exp(sigma * level)",
        ("tests/sim/network/test_rates.py",),
    ),
    Mutant(
        "link", "uplink and downlink are exchanged", f"{NETWORK}/rates.py",
        'if direction == "up":\n            rate_bytes_per_s, sigma', 'if direction == "down":\n            rate_bytes_per_s, sigma',
        ("tests/sim/network/test_rates.py",),
    ),
    Mutant(
        "link", "rates do not change at the end of a slot", f"{NETWORK}/rates.py",
        "self._link.set_accesses({client_id: self._rate_now(client_id) for client_id in varying})\n", "pass\n",
        ("tests/sim/network/test_rates.py",),
    ),
    Mutant(
        "link", "of several windows the narrowest holds", f"{NETWORK}/rates.py",
        "cap_bytes_per_s = max(cap_bytes_per_s, *caps.values())", "cap_bytes_per_s = min(caps.values())",
        ("tests/sim/network/test_rates.py", "tests/sim/network/test_tcp.py"),
    ),
    Mutant(
        "link", "what passes an edge takes nothing of its capacity", f"{NETWORK}/tree.py",
        "else self._capacity - self.passing_units", "else self._capacity",
        ("tests/sim/network/test_tree.py",),
    ),
    Mutant(
        "link", "a group merged further up runs at its own edge's level", f"{NETWORK}/tree.py",
        "rate = self.level if place is None or place.is_own else place.node.rate", "rate = self.level",
        ("tests/sim/network/test_tree.py",),
    ),
    Mutant(
        "link", "a round trip leaves out the edges above the first", f"{NETWORK}/edges.py",
        "sum(self.edges[step].rtt for step in way_up(name, self.edges))", "self.edges[name].rtt",
        ("tests/sim/network/test_edges.py",),
    ),
    Mutant(
        "link", 'a link slower than the unit is cut off', f"{NETWORK}/link.py",
        'round(rate_bytes_per_s / RATE_UNIT_BYTES_PER_S) or 1', 'round(rate_bytes_per_s / RATE_UNIT_BYTES_PER_S)',
        ('tests/sim/network/test_link.py::test_a_rate_is_zero_only_where_it_is_exactly_zero',),
    ),
]  # fmt: skip

STALENESS = [
    Mutant(
        "staleness", "a group is one version more behind", f"{SHARED}/learner.py",
        "self._state.policy.version - final.group.policy_version", "self._state.policy.version - final.group.policy_version + 1",
        ("tests/protocols/shared/test_group_relative.py",),
    ),
    Mutant(
        "staleness", "max_staleness itself is too stale", f"{SHARED}/update_schedules.py",
        "if learner.staleness(final) <= update.max_staleness:", "if learner.staleness(final) < update.max_staleness:",
        ("tests/protocols/shared/test_group_relative.py::test_groups_beyond_max_staleness_are_dropped_counted_and_forgotten",),
    ),
    Mutant(
        "staleness", "nothing is too stale", f"{SHARED}/update_schedules.py",
        "if learner.staleness(final) <= update.max_staleness:", "if True:",
        ("tests/protocols/shared/test_group_relative.py::test_groups_beyond_max_staleness_are_dropped_counted_and_forgotten",),
    ),
    Mutant(
        "staleness", "a buffer's questions are asked one buffer too early", f"{SHARED}/update_schedules.py",
        "(self._num_emptied + 1 + update.max_staleness)", "(self._num_emptied + 2 + update.max_staleness)",
        ("tests/protocols/shared/test_update_schedules.py",),
    ),
    Mutant(
        "staleness", "a buffer is trained in the order of arrival", f"{SHARED}/update_schedules.py",
        "sorted(buffer, key=lambda place: place[0])", "buffer",
        ("tests/protocols/shared/test_update_schedules.py",),
    ),
    Mutant(
        "staleness", "what is too stale is not asked again", f"{SHARED}/update_schedules.py",
        "rollouts.again(final.group.draw)", "pass",
        ("tests/protocols/shared/test_update_schedules.py",),
    ),
    Mutant(
        "staleness", "staleness is counted after the step", f"{SHARED}/learner.py",
        "staleness = [self.staleness(final) for final in batch]\n        stats = self._state.policy.update(\n"
        "            [final.group for final in batch], [final.advantages for final in batch]\n        )\n",
        "stats = self._state.policy.update(\n            [final.group for final in batch], "
        "[final.advantages for final in batch]\n        )\n        staleness = [self.staleness(final) for final in batch]\n",
        ("tests/protocols/shared/test_group_relative.py",),
    ),
    Mutant(
        "staleness", "the record names the freshest group of a step", f"{SHARED}/monitor.py",
        "staleness_max=max(staleness, default=0)", "staleness_max=min(staleness, default=0)",
        ("tests/protocols/shared/test_group_relative.py",),
    ),
    Mutant(
        "staleness", "a module's version is that of its arrival", f"{SHARED}/async_averaging.py",
        "difference(module, sent), version, wire", "difference(module, sent), self._state.policy.version, wire",
        ("tests/protocols/shared/test_async_averaging.py",),
    ),
    Mutant(
        "staleness", "a module's change is taken from the live module, not from the one it was sent", f"{SHARED}/async_averaging.py",
        "sent = unpacked(tensors,", "sent = unpacked(self._tensors,",
        ("tests/protocols/shared/test_async_averaging.py",),
    ),
    Mutant(
        "staleness", "a module of max_staleness is dropped", f"{SHARED}/async_averaging.py",
        "behind > schedule.max_staleness", "behind >= schedule.max_staleness",
        ("tests/protocols/shared/test_async_averaging.py::test_modules_of_max_staleness_itself_are_merged",),
    ),
    Mutant(
        "staleness", "what staleness takes from one difference is given to the others", f"{SHARED}/async_averaging.py",
        "shares * np.array(stale)", "shares * np.array(stale) / (shares @ np.array(stale))",
        ("tests/protocols/shared/test_async_averaging.py",),
    ),
    Mutant(
        "staleness", "the rate yields to the freshest module of a buffer", f"{SHARED}/async_averaging.py",
        "delayed_rate(rate, max(staleness)", "delayed_rate(rate, min(staleness)",
        ("tests/protocols/shared/test_async_averaging.py",),
    ),
    Mutant(
        "staleness", "one version behind counts like none", f"{SHARED}/server_optimizers.py",
        "(1.0 + staleness) ** -exponent", "max(1.0, staleness) ** -exponent",
        ("tests/protocols/shared/test_server_optimizers.py",),
    ),
    Mutant(
        "staleness", "AMSGrad forgets its largest square", f"{SHARED}/server_optimizers.py",
        "np.maximum(moments.largest[name], square[name])", "square[name]",
        ("tests/protocols/shared/test_server_optimizers.py",),
    ),
    Mutant(
        "staleness", "the rate yields at the threshold already", f"{SHARED}/server_optimizers.py",
        "return rate if worst_staleness <= threshold", "return rate if worst_staleness < threshold",
        ("tests/protocols/shared/test_server_optimizers.py",),
    ),
    Mutant(
        "staleness", "the mean staleness of a run counts small steps like large ones", "fedsim/records/totals.py",
        "(row.staleness_mean, row.num_groups) for row in rows", "(row.staleness_mean, 1) for row in rows",
        ("tests/records/test_summary.py",),
    ),
    Mutant(
        "staleness", 'who asks a step later at the same instant is sampled by a later batch', f"{SHARED}/rollouts.py",
        '            await asyncio.sleep(0)  # everyone who asks at this instant joins the batch\n', '',
        ('tests/protocols/shared/test_group_relative.py::test_whoever_asks_at_the_same_instant_joins_the_batch_though_it_comes_a_step_later',),
    ),
    Mutant(
        "staleness", 'trainings lost in a long run add up to the hopeless limit', f"{SHARED}/async_averaging.py",
        '        self._num_lost_in_a_row = 0\n        module', '        module',
        ('tests/protocols/shared/test_async_averaging.py::test_tasks_lost_now_and_then_in_a_long_run_do_not_end_it',),
    ),
    Mutant(
        "staleness", 'groups that were too stale had no rewards', "fedsim/records/summary.py",
        '("trained", "too_stale")', '("trained",)',
        ('tests/records/test_summary.py',),
    ),
]  # fmt: skip

BYTES = [
    Mutant(
        "bytes", "segments have no headers", f"{NETWORK}/transport.py",
        "return self._stream_bytes(message_bytes) + headers", "return self._stream_bytes(message_bytes)",
        ("tests/sim/network/test_transport.py",),
    ),
    Mutant(
        "bytes", "the last, short record of TLS is free", f"{NETWORK}/transport.py",
        "self.config.tls_record * _ceil_div(message_bytes, TLS_RECORD_BYTES)",
        "self.config.tls_record * (message_bytes // TLS_RECORD_BYTES)",
        ("tests/sim/network/test_transport.py",),
    ),
    Mutant(
        "bytes", "what is sent again has no headers", f"{NETWORK}/transport.py",
        "round(repeats * plan.wire_bytes / plan.num_segments)", "round(repeats * plan.message_bytes / plan.num_segments)",
        ("tests/sim/network/test_transport.py",),
    ),
    Mutant(
        "bytes", "a cut message is charged whole", "fedsim/federation/transfers.py",
        'self._log(request_id, purpose, "cut", self._sent_bytes, message_bytes)',
        'self._log(request_id, purpose, "cut", self._plan.total_bytes, message_bytes)',
        ("tests/federation/test_request.py",),
    ),
    Mutant(
        "bytes", "a cut message is not charged at all", "fedsim/federation/transfers.py",
        'self._log(request_id, purpose, "cut", self._sent_bytes, message_bytes)', "pass",
        ("tests/federation/test_request.py",),
    ),
    Mutant(
        "bytes", "what is sent again takes no time", "fedsim/federation/transfers.py",
        "device.client_id, device.profile, self._plan.total_bytes", "device.client_id, device.profile, self._plan.wire_bytes",
        ("tests/federation/test_request.py", "tests/federation/test_request_theory.py"),
    ),
    Mutant(
        "bytes", "the paper counts what goes down, too", "fedsim/federation/transfers.py",
        'counts = arrived and self.direction == "up"', "counts = arrived",
        ("tests/federation/test_request.py",),
    ),
    Mutant(
        "bytes", "the paper counts a reply that never arrived", "fedsim/federation/transfers.py",
        'counts = arrived and self.direction == "up"', 'counts = self.direction == "up"',
        ("tests/federation/test_request.py",),
    ),
    Mutant(
        "bytes", "the paper counts a doubled reply twice", "fedsim/federation/transfers.py",
        'arrived=arrived and fate != "duplicate"', "arrived=arrived",
        ("tests/federation/test_request_faults.py",),
    ),
    Mutant(
        "bytes", "a handshake's directions are exchanged", "fedsim/federation/transfers.py",
        'self._flights += [("up", up_bytes), ("down", down_bytes)]', 'self._flights += [("up", down_bytes), ("down", up_bytes)]',
        ("tests/federation/test_request.py",),
    ),
    Mutant(
        "bytes", "a handshake is free", "fedsim/federation/transfers.py",
        "            self._opening.charge(request_id, fate)\n", "            pass\n",
        ("tests/federation/test_request.py",),
    ),
    Mutant(
        "bytes", "the radio of an uplink is that of a downlink", "fedsim/federation/transfers.py",
        "return radio_energy_j(device.profile, wire_bytes, 0)", "return radio_energy_j(device.profile, 0, wire_bytes)",
        ("tests/federation/test_request.py",),
    ),
    Mutant(
        "bytes", "a text of 32 bytes has a header of one", "fedsim/federation/billed_sizes.py",
        "return 1 if num_bytes < 32 else", "return 1 if num_bytes <= 32 else",
        (f"{BILLED}::test_a_text_at_the_edge_of_a_size_class_has_the_right_header",),
    ),
    Mutant(
        "bytes", "an array of 16 has a header of one byte", "fedsim/federation/billed_sizes.py",
        "return 1 if num_items < 16 else", "return 1 if num_items <= 16 else",
        (f"{BILLED}::test_a_billed_length_is_that_of_a_real_message_with_texts_and_arrays_of_the_billed_size",),
    ),
    Mutant(
        "bytes", "a billed candidate has no end token", "fedsim/federation/billed_sizes.py",
        'return self.lengths.tokens("candidate", text) + 1', 'return self.lengths.tokens("candidate", text)',
        (f"{BILLED}::test_billed_counts_are_the_stated_lengths_and_a_sampled_candidate_has_its_end_token",),
    ),
    Mutant(
        "bytes", "the paper counts four bytes a reward", f"{NETWORK}/wire.py",
        "NUMBER_BYTES = 8\n", "NUMBER_BYTES = 4\n",
        ("tests/sim/network/test_wire.py",),
    ),
    Mutant(
        "bytes", "the summary exchanges uplink and downlink", "fedsim/records/totals.py",
        '{"uplink": self.by_direction["up"], "downlink": self.by_direction["down"]}',
        '{"uplink": self.by_direction["down"], "downlink": self.by_direction["up"]}',
        ("tests/records/test_summary.py",),
    ),
    Mutant(
        "bytes", "only useful bytes have left a client", "fedsim/records/totals.py",
        'if row.direction == "up" and row.wire_bytes > 0', 'if row.direction == "up" and row.fate == "useful"',
        ("tests/records/test_summary.py",),
    ),
    Mutant(
        "bytes", "a class's energy leaves out its radios", "fedsim/records/totals.py",
        '            energy_j[transfer.client_id].append(transfer.energy_j)\n', '            pass\n',
        ('tests/records/test_totals.py',),
    ),
    Mutant(
        "bytes", 'replies that came after the end count as under way', "fedsim/records/summary.py",
        'row.status != "ok" and row.ended_at_s > end_s', 'row.ended_at_s > end_s',
        ('tests/records/test_summary.py',),
    ),
]  # fmt: skip

ADVANTAGES = [
    Mutant(
        "advantages", "scores are not centred", "fedsim/rl/advantages.py",
        "centred = scores - there.mean()", "centred = scores",
        ("tests/rl/test_advantages.py",),
    ),
    Mutant(
        "advantages", "deviations are divided by n - 1", "fedsim/rl/advantages.py",
        "(there.std() + epsilon)", "(there.std(ddof=1) + epsilon)",
        ("tests/rl/test_advantages.py",),
    ),
    Mutant(
        "advantages", "epsilon is a floor instead of a summand", "fedsim/rl/advantages.py",
        "(there.std() + epsilon)", "max(there.std(), epsilon)",
        ("tests/rl/test_advantages.py",),
    ),
    Mutant(
        "advantages", "partial replies leave advantages off centre", "fedsim/rl/advantages.py",
        "return np.asarray(averaged - scored.mean(), dtype=np.float64)", "return averaged",
        ("tests/rl/test_advantages.py",),
    ),
    Mutant(
        "advantages", "a missing score is a zero", "fedsim/rl/advantages.py",
        "there = scores[~np.isnan(scores)]\n    if there.size < at_least", "there = np.nan_to_num(scores)\n    if there.size < at_least",
        ("tests/rl/test_advantages.py",),
    ),
    Mutant(
        "advantages", "experts are standardised over experts, not over candidates", "fedsim/rl/advantages.py",
        "rows = [_standardised(row, epsilon, divide_by_std) for row in rewards]\n"
        "        averaged = fuse(np.array(rows).reshape(rewards.shape), weights)",
        "rows = [_standardised(row, epsilon, divide_by_std) for row in rewards.T]\n"
        "        averaged = fuse(np.array(rows).reshape(rewards.T.shape).T, weights)",
        ("tests/rl/test_advantages.py",),
    ),
    Mutant(
        "advantages", "an expert that scored one candidate has a say", "fedsim/rl/advantages.py",
        "divide: bool, at_least: int = 2)", "divide: bool, at_least: int = 1)",
        ("tests/rl/test_advantages.py",),
    ),
    Mutant(
        "advantages", "a group with one scored candidate is trained", "fedsim/rl/advantages.py",
        "if scored.size < 2:", "if scored.size < 1:",
        ("tests/rl/test_advantages.py",),
    ),
    Mutant(
        "advantages", "the format reward punishes", "fedsim/rl/advantages.py",
        "rewards + weight * format_rewards[None, :]", "rewards - weight * format_rewards[None, :]",
        ("tests/rl/test_advantages.py",),
    ),
    Mutant(
        "advantages", "a tie at the threshold is right", "fedsim/rl/advantages.py",
        "np.where(labels == 0, np.nan, labels)", "np.where(labels == 0, 1.0, labels)",
        ("tests/rl/test_discriminative.py",),
    ),
    Mutant(
        "advantages", "a weight that is in the rewards is applied again", "fedsim/rl/scaling.py",
        'return Signal(gains, 1.0 if order == "before" else weight)', "return Signal(gains, weight)",
        ("tests/rl/test_scaling.py",),
    ),
    Mutant(
        "advantages", "easy questions count more", "fedsim/rl/scaling.py",
        "1.0 / (consistency + _SMALLEST_CONSISTENCY)", "1.0 / (1.0 - consistency + _SMALLEST_CONSISTENCY)",
        ("tests/rl/test_scaling.py",),
    ),
    Mutant(
        "advantages", "the ratio is clipped where it should not be, and nowhere else", "fedsim/rl/losses.py",
        "(ratio * gain).minimum(clipped * gain)", "(ratio * gain).maximum(clipped * gain)",
        ("tests/rl/test_losses.py",),
    ),
    Mutant(
        "advantages", "the lower and the upper clip range are exchanged", "fedsim/rl/losses.py",
        "ratio.clamp(1.0 - clip_low, 1.0 + clip_high)", "ratio.clamp(1.0 - clip_high, 1.0 + clip_low)",
        ("tests/rl/test_losses.py",),
    ),
    Mutant(
        "advantages", "the weight of a stale token is not truncated", "fedsim/rl/losses.py",
        ".exp().clamp(max=cap).detach()", ".exp().detach()",
        ("tests/rl/test_losses_lengths.py",),
    ),
    Mutant(
        "advantages", "the divergence from the reference is that of the reference", "fedsim/rl/losses.py",
        "difference = reference_log_probs - log_probs", "difference = log_probs - reference_log_probs",
        ("tests/rl/test_losses.py",),
    ),
    Mutant(
        "advantages", "groups lost in a long healthy run add up to the hopeless limit", f"{SHARED}/learner.py",
        "        self._lost_in_a_row.clear()\n", "",
        ("tests/protocols/shared/test_group_relative.py",),
    ),
    Mutant(
        "advantages", 'missing: zero counts one half', f"{SHARED}/learner.py",
        'np.nan_to_num(rewards, nan=0.0)', 'np.nan_to_num(rewards, nan=0.5)',
        ('tests/protocols/shared/test_group_relative.py::test_a_missing_reward_is_masked_counts_as_zero_or_costs_the_group',),
    ),
]  # fmt: skip

FUSION = [
    Mutant(
        "fusion", "the middle of an expert's range is approved of", "fedsim/rl/fusion.py",
        "np.where(row > middle, 1.0, -1.0)", "np.where(row >= middle, 1.0, -1.0)",
        ("tests/rl/test_fusion.py",),
    ),
    Mutant(
        "fusion", "where all weights are 0 nobody counts", "fedsim/rl/fusion.py",
        "shares = np.where(weighted.sum(axis=0) > 0, weighted, shares)", "shares = weighted",
        ("tests/rl/test_fusion.py",),
    ),
    Mutant(
        "fusion", "weights are not normalised", "fedsim/rl/fusion.py",
        "totals / np.where(known, counts, 1.0)", "totals / np.where(known, answered.sum(axis=0), 1.0)",
        ("tests/rl/test_fusion.py",),
    ),
    Mutant(
        "fusion", "weights are normalised over the silent, too", "fedsim/rl/fusion.py",
        "counts = shares.sum(axis=0)\n", "counts = shares.sum(axis=0) if weights is None else weights.sum() * np.sign(shares.sum(axis=0))\n",
        ("tests/rl/test_fusion.py",),
    ),
    Mutant(
        "fusion", "a missing score counts as zero", "fedsim/rl/fusion.py",
        "shares = answered.astype(np.float64)", "shares = np.ones(scores.shape) * answered.any(axis=0)",
        ("tests/rl/test_fusion.py",),
    ),
    Mutant(
        "fusion", "a trimmed mean rounds what it cuts up", "fedsim/rl/fusion.py",
        "np.floor(trim * num_answered + _ROUNDING)", "np.ceil(trim * num_answered - _ROUNDING)",
        ("tests/rl/test_fusion.py",),
    ),
    Mutant(
        "fusion", "a trimmed mean keeps the highest", "fedsim/rl/fusion.py",
        "(place < num_answered - cut)", "(place < num_answered)",
        ("tests/rl/test_fusion.py",),
    ),
    Mutant(
        "fusion", "0.29 of 100 is 28", "fedsim/rl/fusion.py",
        "_ROUNDING = 1e-9", "_ROUNDING = 0.0",
        ("tests/rl/test_fusion.py",),
    ),
    Mutant(
        "fusion", "who tells nothing apart votes against everybody", "fedsim/rl/fusion.py",
        "for row in scores[_has_spread(scores)]:", "for row in scores[answered.any(axis=1)]:",
        ("tests/rl/test_fusion.py",),
    ),
    Mutant(
        "fusion", "silence is a vote against", "fedsim/rl/fusion.py",
        "np.where(np.isnan(row), 0.0, np.where(", "np.where(np.isnan(row), -1.0, np.where(",
        ("tests/rl/test_fusion.py",),
    ),
    Mutant(
        "fusion", "the only opinion is voted on", "fedsim/rl/fusion.py",
        "if len(rows) == 1:", "if len(rows) == 0:",
        ("tests/rl/test_fusion.py",),
    ),
    Mutant(
        "fusion", "the widest expert sets the scale", "fedsim/rl/fusion.py",
        "means.mean() + deviations.mean() *", "means.mean() + deviations.max() *",
        ("tests/rl/test_fusion.py",),
    ),
    Mutant(
        "fusion", "an expert worse than a coin is turned around", "fedsim/rl/reliability.py",
        "np.maximum(np.log(trusts) - np.log1p(-trusts), 0.0)", "np.log(trusts) - np.log1p(-trusts)",
        ("tests/rl/test_reliability.py",),
    ),
    Mutant(
        "fusion", "who is distrusted accuses like everybody", "fedsim/rl/reliability.py",
        "np.where(np.isnan(alike), 0.0, trust(evidence, prior)[ids][None, :])", "np.where(np.isnan(alike), 0.0, 1.0)",
        ("tests/rl/test_reliability.py",),
    ),
    Mutant(
        "fusion", "a refused reply is no evidence", "fedsim/rl/reliability.py",
        "bad = evidence.disagreed + evidence.refused +", "bad = evidence.disagreed +",
        ("tests/rl/test_reliability.py",),
    ),
    Mutant(
        "fusion", "the router's shares are taken over the questions", "fedsim/rl/reward_router.py",
        "return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float64)",
        "return np.asarray(powers / powers.sum(axis=0, keepdims=True), dtype=np.float64)",
        ("tests/rl/test_reward_router.py",),
    ),
]  # fmt: skip

SELECTION = [
    Mutant(
        "selection", "the least competent are asked", f"{SHARED}/expert_ranking.py",
        "for score in sorted(by_score, reverse=True):", "for score in sorted(by_score):",
        ("tests/protocols/shared/test_expert_ranking_and_confidence_graph.py",),
    ),
    Mutant(
        "selection", "M + 1 experts are asked", f"{SHARED}/expert_ranking.py",
        "return tuple(chosen[:num_experts])", "return tuple(chosen[: num_experts + 1])",
        ("tests/protocols/shared/test_expert_ranking_and_confidence_graph.py",),
    ),
    Mutant(
        "selection", "ties go to the lower id", f"{SHARED}/expert_ranking.py",
        'key=lambda client: (streams.uniform(seed, "tie", question_id, client), client)', "key=lambda client: client",
        ("tests/protocols/shared/test_expert_ranking_and_confidence_graph.py",),
    ),
    Mutant(
        "selection", "ties go to the same client for every question", f"{SHARED}/expert_ranking.py",
        'streams.uniform(seed, "tie", question_id, client)', 'streams.uniform(seed, "tie", client)',
        ("tests/protocols/shared/test_expert_ranking_and_confidence_graph.py",),
    ),
    Mutant(
        "selection", "random experts are the same for every question", f"{SHARED}/expert_ranking.py",
        'streams.uniform(seed, "random expert", question_id, client)', 'streams.uniform(seed, "random expert", client)',
        ("tests/protocols/shared/test_expert_ranking_and_confidence_graph.py",),
    ),
    Mutant(
        "selection", "an expert at the floor is not asked", f"{SHARED}/expert_ranking.py",
        "if scores[client] >= least > 0)", "if scores[client] > least > 0)",
        ("tests/protocols/shared/test_expert_ranking_and_confidence_graph.py",),
    ),
    Mutant(
        "selection", "a share of nothing is a floor that everybody reaches", f"{SHARED}/expert_ranking.py",
        "if scores[client] >= least > 0)", "if scores[client] >= least)",
        ("tests/protocols/shared/test_client_selection.py",),
    ),
    Mutant(
        "selection", "the first answer to the probe is always enough", f"{SHARED}/client_selection.py",
        "enough = math.ceil(self._config.probed_share * len(self._federation.clients))", "enough = 1",
        ("tests/protocols/shared/test_client_selection.py",),
    ),
    Mutant(
        "selection", "random experts are asked whatever the floor", f"{SHARED}/client_selection.py",
        "if config.competence_floor:  # as many", "if False:  # as many",
        ("tests/protocols/test_controls.py",),
    ),
    Mutant(
        "selection", "the oracle knows no floor", f"{SHARED}/client_selection.py",
        "return self._best(draw, accuracy, eligible, num_experts)",
        "return best_experts(accuracy, question.question_id, num_experts, eligible, seed)",
        ("tests/protocols/test_controls.py",),
    ),
    Mutant(
        "selection", "the floor is a share of the best that is there", f"{SHARED}/expert_ranking.py",
        "known = scores[~np.isnan(scores)]", "known = scores[list(chosen)]",
        ("tests/protocols/shared/test_expert_ranking_and_confidence_graph.py",),
    ),
    Mutant(
        "selection", "the farthest exemplars decide", f"{SHARED}/confidence_graph.py",
        "np.argsort(-self._cosines(embedding)", "np.argsort(self._cosines(embedding)",
        ("tests/protocols/shared/test_expert_ranking_and_confidence_graph.py",),
    ),
    Mutant(
        "selection", "long embeddings are near to everything", f"{SHARED}/confidence_graph.py",
        "return np.asarray(vectors / np.where(norms > 0, norms, 1.0), dtype=np.float64)", "return vectors",
        ("tests/protocols/shared/test_expert_ranking_and_confidence_graph.py",),
    ),
    Mutant(
        "selection", "an exemplar that a client did not answer is wrong", f"{SHARED}/confidence_graph.py",
        "correct / np.maximum(answered, 1)", "correct / len(exemplars)",
        ("tests/protocols/shared/test_expert_ranking_and_confidence_graph.py",),
    ),
    Mutant(
        "selection", "who is away is asked", f"{SHARED}/client_selection.py",
        "return [client_id for client_id in there if client_id in probed]", "return sorted(probed)",
        ("tests/protocols/shared/test_client_selection.py",),
    ),
    Mutant(
        "selection", "who has not answered the probe is asked", f"{SHARED}/client_selection.py",
        "if not self._is_graph_read:\n            return there", "if True:\n            return there",
        ("tests/protocols/shared/test_client_selection.py",),
    ),
    Mutant(
        "selection", "competence is never asked for anew when one more client has answered the probe", f"{SHARED}/client_selection.py",
        "self._competence_of_question.clear()\n            self._somebody_answered.set()", "self._somebody_answered.set()",
        ("tests/protocols/shared/test_client_selection.py",),
    ),
    Mutant(
        "selection", "a client that was asked already is its own spare", f"{SHARED}/client_selection.py",
        "asked = set(chosen)\n", "asked: set[int] = set()\n",
        ("tests/federation/stragglers/test_spares.py", "tests/protocols/test_fedgrpo.py"),
    ),
    Mutant(
        "selection", "an expert whose competence nobody asked for counts nothing", f"{SHARED}/client_selection.py",
        "np.where(np.isnan(weights), 1.0, weights)", "np.where(np.isnan(weights), 0.0, weights)",
        ("tests/protocols/shared/test_client_selection.py", "tests/protocols/test_fedgrpo.py"),
    ),
    Mutant(
        "selection", "one client trains whenever it is there", f"{SHARED}/async_averaging.py",
        'streams.uniform(seed, "next client", task, client_id)', 'streams.uniform(seed, "next client", client_id)',
        ("tests/protocols/shared/test_async_averaging.py",),
    ),
    Mutant(
        "selection", "a client trains twice at the same time", f"{SHARED}/async_averaging.py",
        "for client_id in self._with_rows if client_id not in self._busy]", "for client_id in self._with_rows]",
        ("tests/protocols/shared/test_async_averaging.py",),
    ),
    Mutant(
        "selection", "what the end of the run cuts short is an expert's conduct", f"{SHARED}/trust.py",
        'if not self._state.monitor.stopped.is_set():', 'if True:',
        ('tests/protocols/shared/test_trust.py',),
    ),
    Mutant(
        "selection", 'an expert at the stated share of replies is silent', f"{SHARED}/trust.py",
        'conduct.answered < limits.silent_below * conduct.asked', 'conduct.answered <= limits.silent_below * conduct.asked',
        ('tests/protocols/shared/test_trust.py',),
    ),
    Mutant(
        "selection", 'audits that tell nothing are sent', f"{SHARED}/trust.py",
        '[audit for audit in audits if any(audit.right) and not all(audit.right)]', 'audits',
        ('tests/protocols/shared/test_trust.py',),
    ),
]  # fmt: skip

RESUME = [
    Mutant(
        "resume", "the shorter of two spools is compared with", f"{REPLAY}/diff.py",
        "return max(there, key=", "return min(there, key=",
        ("tests/experiment/replay/test_diff.py",),
    ),
    Mutant(
        "resume", "the clean-up after an interrupt is compared with the earlier life", "fedsim/experiment/journal.py",
        "            self._same.stop()\n", "            pass\n",
        ("tests/experiment/test_journal.py",),
    ),
    Mutant(
        "resume", "what came after an interrupt must come again", "fedsim/experiment/journal.py",
        "SameRecords(old, spool, upto)", "SameRecords(old, spool)",
        ("tests/experiment/test_journal.py",),
    ),
    Mutant(
        "resume", "an interrupt while a run is replayed forgets what was ahead", "fedsim/experiment/journal.py",
        "if self._tape is not None and self._tape.replaying:\n            raise KeyboardInterrupt", "if False:\n            raise KeyboardInterrupt",
        ("tests/experiment/test_journal.py", "tests/experiment/test_run.py"),
    ),
    Mutant(
        "resume", "models that were trained otherwise go on with a run", "fedsim/experiment/journal.py",
        "        if differing:\n", "        if False:\n",
        ("tests/experiment/test_journal.py", "tests/experiment/test_run.py"),
    ),
    Mutant(
        "resume", "a replay reads one result too many", f"{REPLAY}/tape.py",
        "self._shadow is None and self._offset < self._upto", "self._shadow is None and self._offset <= self._upto",
        ("tests/experiment/replay/test_tape.py",),
    ),
    Mutant(
        "resume", "a result is taken for that of another question", f"{REPLAY}/tape.py",
        "if (entry.kind, entry.asked) != (kind, asked):", "if entry.kind != kind:",
        ("tests/experiment/replay/test_tape.py",),
    ),
    Mutant(
        "resume", "a model that computes other bits goes unnoticed", f"{REPLAY}/tape.py",
        "if encoded != self._next[1]:", "if False:",
        ("tests/experiment/replay/test_tape.py",),
    ),
    Mutant(
        "resume", "the clean-up after an interrupt goes on the tape", f"{REPLAY}/tape.py",
        "return self._next is None and not self._sealed and self._writer is not None",
        "return self._next is None and self._writer is not None",
        ("tests/experiment/replay/test_tape.py",),
    ),
    Mutant(
        "resume", "results wait in memory until the run ends", f"{REPLAY}/tape.py",
        "            self._writer.flush()\n", "            pass\n",
        ("tests/experiment/replay/test_tape.py",),
    ),
    Mutant(
        "resume", "the first checkpoint is taken up, not the last", f"{REPLAY}/checkpoints.py",
        "for name, end in reversed(found) if", "for name, end in found if",
        ("tests/experiment/replay/test_checkpoints.py",),
    ),
    Mutant(
        "resume", "a torn checkpoint is taken up", f"{REPLAY}/checkpoints.py",
        "if is_whole(folder / name)), None)", "if True), None)",
        ("tests/experiment/replay/test_checkpoints.py",),
    ),
    Mutant(
        "resume", "only one checkpoint is kept", f"{REPLAY}/checkpoints.py",
        "_KEPT = 2", "_KEPT = 1",
        ("tests/experiment/replay/test_checkpoints.py",),
    ),
    Mutant(
        "resume", "a checkpoint is on the tape before it is on the disk", f"{REPLAY}/checkpoints.py",
        "        try:\n            self.write(name, policy)", "        tape.mark(name)\n        try:\n            self.write(name, policy)",
        ("tests/experiment/replay/test_checkpoints.py",),
    ),
    Mutant(
        "resume", "a checkpoint has its name before it is whole", f"{REPLAY}/checkpoints.py",
        "self._folder / name, self.partial(name)\n        shutil.rmtree(partial, ignore_errors=True)\n        partial.mkdir(parents=True)\n"
        "        policy.save_state(partial)\n        for path in partial.iterdir():\n            _sync(path)\n"
        "        shutil.rmtree(final, ignore_errors=True)\n        partial.rename(final)\n",
        "self._folder / name, self._folder / name\n        shutil.rmtree(partial, ignore_errors=True)\n"
        "        partial.mkdir(parents=True)\n        policy.save_state(partial)\n        for path in partial.iterdir():\n"
        "            _sync(path)\n",
        ("tests/experiment/replay/test_checkpoints.py",),
    ),
    Mutant(
        "resume", "a checkpoint's files are not forced onto the disk", f"{REPLAY}/checkpoints.py",
        "            _sync(path)\n", "            pass\n",
        ("tests/experiment/replay/test_checkpoints.py",),
        equivalent="only a machine that loses its power tells what the operating system still held",
    ),
    Mutant(
        "resume", "arrays come back in the order of the file", f"{REPLAY}/blobs.py",
        "return {key: found[key] for key in order}", "return found",
        ("tests/experiment/replay/test_blobs.py",),
    ),
    Mutant(
        "resume", "another program goes on with a run", f"{REPLAY}/origin.py",
        'if manifest.get("code") != source_hash():', "if False:",
        ("tests/experiment/test_resume.py",),
    ),
    Mutant(
        "resume", "a torn last frame is read", "fedsim/records/frames.py",
        "if len(payload) < length or _checksum(length, payload) != checksum:", "if len(payload) < length:",
        ("tests/records/test_frames.py",),
    ),
    Mutant(
        "resume", 'a replay stumbles over the checkpoints on its way', f"{REPLAY}/tape.py",
        '        self.pass_checkpoints()\n        self._num_calls', '        self._num_calls',
        ('tests/experiment/replay/test_tape.py',),
    ),
]  # fmt: skip

INVARIANTS = [
    Mutant(
        "invariants", "two requests may share their draws", "fedsim/records/invariants.py",
        "_most_alike(self._keys) <= 1", "_most_alike(self._keys) <= 2",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "computations may overlap by a thousandth (fast check)", "fedsim/records/invariants.py",
        "free_at_s - 1e-9 * max(1.0, free_at_s)", "free_at_s - 1e-3 * max(1.0, free_at_s)",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "computations may overlap by a thousandth (simple twin)", "fedsim/records/invariants_naive.py",
        "1e-9 * max(1.0, pair[0].end_at_s)", "1e-3 * max(1.0, pair[0].end_at_s)",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "records may hold other bytes than the links carried", "fedsim/records/invariants.py",
        "return self._sound and balanced and self._groups_fit()", "return self._sound and self._groups_fit()",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "a byte may be missing though nothing was cut", "fedsim/records/invariants_naive.py",
        "tolerance = num_cut[direction]", "tolerance = 1 + num_cut[direction]",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "a message may have another fate than its request", "fedsim/records/invariants.py",
        "if fate != FATE_OF_STATUS[status]:", "if False:",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "a transfer needs no request", "fedsim/records/invariants.py",
        "if not (whole and code):", "if not whole:",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "a computation needs no request", "fedsim/records/invariants.py",
        "if not (known and 0 <= start_s <= end_s):", "if not 0 <= start_s <= end_s:",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "a reward needs no request", "fedsim/records/invariants.py",
        "self._sound &= known and forward", "self._sound &= forward",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "a reply may come of a message that was not sent whole", "fedsim/records/invariants.py",
        "and all(self._is_whole(number) for number in self._codes)", "",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "a request may end twice", "fedsim/records/invariants.py",
        "if page[place] or not in_order:", "if not in_order:",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "requests may end out of order", "fedsim/records/invariants.py",
        " and self._last_at_s <= row.ended_at_s\n", "\n",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "one group more than allowed may be under way", "fedsim/records/invariants.py",
        "(begun - over <= self._limits.groups)", "(begun - over <= self._limits.groups + 1)",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "one client more than allowed may be asked", "fedsim/records/invariants.py",
        "_most_alike(self._asked) <= most)", "_most_alike(self._asked) <= most + 1)",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "more experts may answer than were wanted", "fedsim/records/invariants.py",
        "answered = 0 <= row.num_answered <= row.num_experts", "answered = 0 <= row.num_answered",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "a policy version may come twice", "fedsim/records/invariants.py",
        "version < update.policy_version", "version <= update.policy_version",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "steps may be out of the order of time", "fedsim/records/invariants.py",
        "risen = at_s <= update.at_s and", "risen =",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "looks may be out of the order of time", "fedsim/records/invariants.py",
        "            self._sound &= self._evaluated_at_s <= evaluation.at_s\n", "",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", "staleness may be impossible", "fedsim/records/invariants.py",
        "if not (risen and 0 <= update.staleness_mean <= update.staleness_max):", "if not risen:",
        ("tests/records/test_invariants.py",),
    ),
    Mutant(
        "invariants", 'a device may be there backwards in time', "fedsim/records/invariants.py",
        'forward = all(0 <= row.start_at_s <= row.end_at_s for row in intervals)', 'forward = True',
        ('tests/records/test_invariants.py',),
    ),
    Mutant(
        "invariants", 'a group may be complete before it is dispatched', "fedsim/records/invariants.py",
        'forward = 0 <= row.dispatched_at_s <= row.completed_at_s', 'forward = True',
        ('tests/records/test_invariants.py',),
    ),
    Mutant(
        "invariants", "the paper's bytes may be negative", "fedsim/records/invariants.py",
        'whole = row.wire_bytes >= 0 <= row.paper_bytes and', 'whole = row.wire_bytes >= 0 and',
        ('tests/records/test_invariants.py',),
    ),
    Mutant(
        "invariants", 'a request may end before it was sent', "fedsim/records/invariants.py",
        '0 <= row.sent_at_s <= row.ended_at_s and', 'True and',
        ('tests/records/test_invariants.py',),
    ),
]  # fmt: skip

DEADLINES = [
    Mutant(
        "deadlines", "the deadline is not kept", f"{STRAGGLERS}/policies.py",
        "async with asyncio.timeout(self.deadline_s()):", "async with asyncio.timeout(None):",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "what is silent at the deadline is not given up", f"{STRAGGLERS}/policies.py",
        '                asked.give_up("late")\n        except', "                pass\n        except",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "a reply that nobody waits for any more is used", "fedsim/federation/request.py",
        "if self._abandoned is not None:\n            self._end(", "if False:\n            self._end(",
        ("tests/federation/test_request_given_up.py",),
    ),
    Mutant(
        "deadlines", "what others were faster than is called late", "fedsim/federation/request.py",
        '"over_selected" if self._abandoned == "over_selected" else "late"', '"late"',
        ("tests/federation/test_request_given_up.py",),
    ),
    Mutant(
        "deadlines", "a message to stop takes a reply out of the air", "fedsim/federation/request.py",
        'if self._ended or self._phase in ("up", "done"):\n            return "late"\n        self._end("cancelled", "cancelled',
        'if self._ended:\n            return "late"\n        self._end("cancelled", "cancelled',
        ("tests/federation/test_request_given_up.py",),
    ),
    Mutant(
        "deadlines", "the quantile is one reply too late", f"{STRAGGLERS}/policies.py",
        "max(math.ceil(share * len(self._sorted)) - 1, 0)", "min(math.ceil(share * len(self._sorted)), len(self._sorted) - 1)",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "a learned deadline is the quantile itself", f"{STRAGGLERS}/policies.py",
        "learned_s = (config.factor or 1.0) * self", "learned_s = self",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "who was given up is forgotten, and the deadline creeps down", f"{STRAGGLERS}/policies.py",
        "                self._times.add(math.inf)\n", "",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "a learned deadline may exceed the given one", f"{STRAGGLERS}/policies.py",
        "limit_s = min(learned_s, config.deadline or math.inf)", "limit_s = learned_s",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "a deadline is learned one reply late", f"{STRAGGLERS}/policies.py",
        "len(self._times) < (config.warm_up or 1)", "len(self._times) <= (config.warm_up or 1)",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "the newest reply time is forgotten, not the oldest", f"{STRAGGLERS}/policies.py",
        "del self._sorted[bisect_left(self._sorted, self._latest[0])]", "del self._sorted[bisect_left(self._sorted, self._latest[-1])]",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "a quorum is everybody", f"{STRAGGLERS}/policies.py",
        "await asked.enough(config.quorum or len(chosen))", "await asked.enough(len(chosen))",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "a quorum has no grace", f"{STRAGGLERS}/policies.py",
        "await asked.ended(config.grace)", "await asked.ended(0.0)",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "one client is asked beyond the cohort, whatever extra says", f"{STRAGGLERS}/policies.py",
        "islice(spares, config.extra)", "islice(spares, 1)",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "more replies come back than clients were chosen", f"{STRAGGLERS}/policies.py",
        "came = dict(islice(self.replies.items(), num_replies))", "came = dict(self.replies)",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "a spare is asked only when a client is lost", f"{STRAGGLERS}/policies.py",
        "await asked.first_of([client_id], config.hedge_after)", "await asked.first_of([client_id])",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "the slower of a hedged pair goes on for nobody", f"{STRAGGLERS}/policies.py",
        'asked.give_up("over_selected", both)', "pass",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "every loss so far is replaced again", f"{STRAGGLERS}/policies.py",
        "islice(others, num_lost - num_seen)", "islice(others, num_lost)",
        ("tests/federation/stragglers/test_policies.py",),
    ),
    Mutant(
        "deadlines", "reply times are counted from the beginning of the run", f"{STRAGGLERS}/policies.py",
        "self._times.add(self._now_s() - asked_at_s)", "self._times.add(self._now_s())",
        ("tests/federation/stragglers/test_policies.py",),
    ),
]  # fmt: skip

HAZARDS = [
    Mutant(
        "hazards", "a hazard strikes after its endurance, whatever its rate", f"{DEVICES}/dropout.py",
        "now_s + self._endurance / rate_per_s", "now_s + self._endurance",
        ("tests/sim/devices/test_dropout.py", "tests/federation/test_request.py"),
    ),
    Mutant(
        "hazards", "what one phase took of the endurance is given back in the next", f"{DEVICES}/dropout.py",
        "max(self._endurance - self._rate_per_s * (now_s - self._since_s), 0.0)", "self._endurance",
        ("tests/sim/devices/test_dropout.py", "tests/federation/test_request.py"),
    ),
    Mutant(
        "hazards", "all clients fail together", f"{DEVICES}/dropout.py",
        "streams.exponential(1.0, self._failure, *key)", "streams.exponential(1.0, self._failure, *key[1:])",
        ("tests/sim/devices/test_dropout.py",),
    ),
    Mutant(
        "hazards", "all clients give up together", f"{DEVICES}/dropout.py",
        "streams.uniform(self._give_up, *key)", "streams.uniform(self._give_up, *key[1:])",
        ("tests/sim/devices/test_dropout.py",),
    ),
    Mutant(
        "hazards", "tasks are kept with the probability of giving up", f"{DEVICES}/dropout.py",
        "*key) >= self.per_task_of(client_id):", "*key) < self.per_task_of(client_id):",
        ("tests/sim/devices/test_dropout.py",),
    ),
    Mutant(
        "hazards", "nothing fails in a queue", f"{DEVICES}/dropout.py",
        '"queue": hazard.compute', '"queue": 0.0',
        ("tests/sim/devices/test_dropout.py", "tests/federation/test_request.py"),
    ),
    Mutant(
        "hazards", "downloads fail like uploads", f"{DEVICES}/dropout.py",
        '"down": hazard.download', '"down": hazard.upload',
        ("tests/sim/devices/test_dropout.py", "tests/federation/test_request.py"),
    ),
    Mutant(
        "hazards", "a reply in the air can fail", "fedsim/federation/request.py",
        "self._device.leave(self.request_id)\n        if self._hazard is not None:\n            self._hazard.set_rate(0.0)\n        if self._reply_fault",
        "self._device.leave(self.request_id)\n        if self._reply_fault",
        ("tests/federation/test_request.py", "tests/federation/test_request_theory.py"),
    ),
    Mutant(
        "hazards", "a device that is away spends its work's endurance", "fedsim/federation/request.py",
        'if self._hazard is not None:\n            self._hazard.set_rate(0.0)\n        if self._phase == "compute" and self._computation is not None:\n            self._computation.stand_still()',
        'if self._phase == "compute" and self._computation is not None:\n            self._computation.stand_still()',
        ("tests/federation/test_request_suspend.py",),
    ),
    Mutant(
        "hazards", "a task is given up at its end", "fedsim/federation/computation.py",
        "self._nominal_s if share is None else self._nominal_s * share", "self._nominal_s",
        ("tests/federation/test_computation.py", "tests/federation/test_request.py"),
    ),
    Mutant(
        "hazards", "the client with the highest score gives up least", f"{DEVICES}/odds.py",
        "_logistic(self._location + self._spread * self.score(client_id))", "_logistic(self._location - self._spread * self.score(client_id))",
        ("tests/sim/devices/test_odds.py",),
    ),
    Mutant(
        "hazards", "spread makes more of all tasks fail", f"{DEVICES}/odds.py",
        "return _logistic(self._location +", "return _logistic(math.log(self._mean / (1 - self._mean)) +",
        ("tests/sim/devices/test_odds.py",),
    ),
    Mutant(
        "hazards", "a device is struck while it is struck", f"{FAULTS}/windows.py",
        "starts[-1] + self.config.length_s + self._gap_s(", "starts[-1] + self._gap_s(",
        ("tests/sim/faults/test_plan.py",),
    ),
    Mutant(
        "hazards", "the mean time between faults is the hazard", f"{FAULTS}/windows.py",
        "streams.exponential(1 / hazard,", "streams.exponential(hazard,",
        ("tests/sim/faults/test_plan.py",),
    ),
    Mutant(
        "hazards", "a fault strikes all its targets at the same time", f"{FAULTS}/windows.py",
        "*self.key, target, number) if hazard", "*self.key, number) if hazard",
        ("tests/sim/faults/test_plan.py",),
    ),
    Mutant(
        "hazards", "a fault holds at the instant of its end", f"{FAULTS}/windows.py",
        "end_at_s if at_s < end_at_s else None", "end_at_s if at_s <= end_at_s else None",
        ("tests/sim/faults/test_plan.py",),
    ),
    Mutant(
        "hazards", "a share of the devices is rounded down", f"{FAULTS}/windows.py",
        "math.ceil(config.share * len(devices) * (1 - 1e-12))", "math.floor(config.share * len(devices))",
        ("tests/sim/faults/test_plan.py",),
    ),
    Mutant(
        "hazards", "of two slow links one counts", f"{FAULTS}/plan.py",
        "factor *= one.config.factor", "factor = one.config.factor",
        ("tests/sim/faults/test_plan.py",),
    ),
    Mutant(
        "hazards", "a fault more in the scenario changes the luck of others", f"{FAULTS}/plan.py",
        "number = numbers[config.kind] = numbers.get(config.kind, -1) + 1", "number = numbers[config.kind] = place",
        ("tests/sim/faults/test_plan.py",),
    ),
    Mutant(
        "hazards", "the links of all clients have the same luck", "fedsim/federation/request.py",
        "streams.joined(world.seed, device.client_id, about)", "streams.joined(world.seed, about)",
        ("tests/federation/test_request.py",),
    ),
    Mutant(
        "hazards", "a question's luck changes with the number of its draw", "fedsim/federation/request.py",
        "round_index = subject.draw if subject.question_id < 0 else -1", "round_index = subject.draw",
        ("tests/federation/test_request.py",),
    ),
]  # fmt: skip

COST = [
    Mutant(
        "cost", "a training step costs two forwards", f"{DEVICES}/cost.py",
        "return Work(3 * forward,", "return Work(2 * forward,",
        ("tests/sim/devices/test_cost.py",),
    ),
    Mutant(
        "cost", "a training step is one pass over the layers", f"{DEVICES}/cost.py",
        "per_parameter * spec.num_parameters, 3 * spec.num_layers)", "per_parameter * spec.num_parameters, spec.num_layers)",
        ("tests/sim/devices/test_cost.py",),
    ),
    Mutant(
        "cost", "training has no attention", f"{DEVICES}/cost.py",
        "forward = sum(tokens) * spec.flop_per_token + spec.attention_flop_per_pair * pairs",
        "forward = sum(tokens) * spec.flop_per_token",
        ("tests/sim/devices/test_cost.py",),
    ),
    Mutant(
        "cost", "the embedding multiplies", f"{DEVICES}/cost.py",
        "linear = 2 * spec.block_parameters * tokens", "linear = 2 * spec.num_parameters * tokens",
        ("tests/sim/devices/test_cost.py",),
    ),
    Mutant(
        "cost", "a token sees those after it", f"{DEVICES}/cost.py",
        "pairs = tokens * past + tokens * (tokens + 1) // 2", "pairs = tokens * past + tokens * tokens",
        ("tests/sim/devices/test_cost.py",),
    ),
    Mutant(
        "cost", "computing and reading memory do not overlap", f"{DEVICES}/cost.py",
        "max(compute_s, memory_s) + profile", "compute_s + memory_s + profile",
        ("tests/sim/devices/test_cost.py",),
    ),
    Mutant(
        "cost", "the fixed overhead is jittered", f"{DEVICES}/cost.py",
        "return profile.overhead_s + jitter * (\n        max", "return jitter * (\n        profile.overhead_s + max",
        ("tests/sim/devices/test_cost.py",),
    ),
    Mutant(
        "cost", "weights are read once for a whole answer", f"{DEVICES}/cost.py",
        "passes * spec.weight_bytes + cached", "spec.weight_bytes + cached",
        ("tests/sim/devices/test_cost.py",),
    ),
    Mutant(
        "cost", "the first token takes a step of its own", f"{DEVICES}/cost.py",
        "passes = 1 + max(longest - 1, 0)", "passes = 1 + longest",
        ("tests/sim/devices/test_cost.py",),
    ),
    Mutant(
        "cost", "the prompt is read for every candidate", f"{DEVICES}/cost.py",
        "flop = _forward_flop(spec, prompt_tokens, 0, 0)", "flop = len(candidate_tokens) * _forward_flop(spec, prompt_tokens, 0, 0)",
        ("tests/sim/devices/test_cost.py",),
    ),
    Mutant(
        "cost", "candidates do not look at the prompt", f"{DEVICES}/cost.py",
        "_forward_flop(spec, n, prompt_tokens, n)", "_forward_flop(spec, n, 0, n)",
        ("tests/sim/devices/test_cost.py",),
    ),
    Mutant(
        "cost", "the cache holds every query head", f"{DEVICES}/architecture.py",
        "return 2 * self.num_layers * self.num_kv_heads * self.head_dim", "return 2 * self.num_layers * self.num_heads * self.head_dim",
        ("tests/sim/devices/test_architecture.py", "tests/sim/devices/test_cost.py"),
    ),
    Mutant(
        "cost", "a tied matrix counts twice", f"{DEVICES}/architecture.py",
        "head = 0 if self.tied else self.vocab * self.hidden", "head = self.vocab * self.hidden",
        ("tests/sim/devices/test_architecture.py", "tests/sim/devices/test_cost.py"),
    ),
    Mutant(
        "cost", "downloads cost no energy", f"{DEVICES}/cost.py",
        "profile.radio_up_j_per_byte * up_bytes + profile.radio_down_j_per_byte * down_bytes", "profile.radio_up_j_per_byte * up_bytes",
        ("tests/sim/devices/test_cost.py",),
    ),
    Mutant(
        "cost", "a computation that was cut costs the energy of a whole one", "fedsim/federation/computation.py",
        "compute_energy_j(self._device.profile, end_at_s - start_at_s)", "compute_energy_j(self._device.profile, self._nominal_s)",
        ("tests/federation/test_computation.py", "tests/federation/test_request.py"),
    ),
    Mutant(
        "cost", "a computation that was cut counts whole", "fedsim/federation/computation.py",
        "            share = self.share_done\n", "            share = 1.0\n",
        ("tests/federation/test_computation.py", "tests/federation/test_request.py"),
    ),
    Mutant(
        "cost", "a processor serves who came last", f"{DEVICES}/device.py",
        "self._holder = self._queue.popleft()", "self._holder = self._queue.pop()",
        ("tests/sim/devices/test_device.py", "tests/federation/test_request.py"),
    ),
    Mutant(
        "cost", "a task pays for idle power, too", f"{DEVICES}/cost.py",
        "return profile.power_active_w * busy_s", "return (profile.power_active_w + profile.power_idle_w) * busy_s",
        ("tests/sim/devices/test_cost.py",),
    ),
    Mutant(
        "cost", "computations of all devices jitter together", f"{DEVICES}/cost.py",
        "streams.lognormal(profile.compute_jitter, seed, _JITTER, *key)", "streams.lognormal(profile.compute_jitter, seed, _JITTER, *key[1:])",
        ("tests/sim/devices/test_cost.py",),
    ),
    Mutant(
        "cost", "the constraint's slope costs nothing", f"{SHARED}/learner.py",
        '(4 / 3 if self._config.loss == "disco_constrained" else 1)', '1',
        ('tests/protocols/shared/test_group_relative.py::test_a_constrained_step_costs_one_forward_more_than_an_unconstrained_one',),
    ),
    Mutant(
        "cost", 'AMSGrad costs what a plain step costs', f"{SHARED}/async_averaging.py",
        '(12.0 if adaptive else 2.0)', '2.0',
        ('tests/protocols/shared/test_async_averaging.py::test_an_adaptive_step_costs_the_server_ten_flop_and_six_memories_a_number_more',),
    ),
    Mutant(
        "cost", 'answers to exemplars have no end token', f"{SHARED}/client_selection.py",
        '[[tokens.candidate(text) + 1] for text in written]', '[[tokens.candidate(text)] for text in written]',
        ('tests/protocols/shared/test_client_selection.py::test_an_exemplar_costs_a_prompt_and_an_answer_as_long_as_its_label_with_its_end_token',),
    ),
]  # fmt: skip

PARTITION = [
    Mutant(
        "partition", "Dirichlet's axes are exchanged", "fedsim/tasks/partition.py",
        'if config.over == "clients":', 'if config.over != "clients":',
        ("tests/tasks/test_partition.py",),
    ),
    Mutant(
        "partition", "a client's mix is normalised over the clients", "fedsim/tasks/partition.py",
        "np.logaddexp.reduce(log_mix, axis=1, keepdims=True)", "np.logaddexp.reduce(log_mix, axis=0, keepdims=True)",
        ("tests/tasks/test_partition.py",),
    ),
    Mutant(
        "partition", "a small beta gives everybody the same", "fedsim/tasks/partition.py",
        "np.log(uniforms) / beta", "np.log(uniforms) * beta",
        ("tests/tasks/test_partition.py",),
    ),
    Mutant(
        "partition", "all domains are dealt alike", "fedsim/tasks/partition.py",
        'streams.generator(seed, "partition gamma", *key).standard_gamma(beta + 1.0, size)\n'
        '    uniforms = 1.0 - streams.generator(seed, "partition uniform", *key)',
        'streams.generator(seed, "partition gamma").standard_gamma(beta + 1.0, size)\n'
        '    uniforms = 1.0 - streams.generator(seed, "partition uniform")',
        ("tests/tasks/test_partition.py",),
    ),
    Mutant(
        "partition", "rows of all domains have the same luck", "fedsim/tasks/partition.py",
        'draw_owners(weights[:, column], rows, seed, "row owner", domain)', 'draw_owners(weights[:, column], rows, seed, "row owner")',
        ("tests/tasks/test_partition.py",),
    ),
    Mutant(
        "partition", "IID begins with client 0 in every domain", "fedsim/tasks/partition.py",
        "            offset += rows\n", "",
        ("tests/tasks/test_partition.py",),
    ),
    Mutant(
        "partition", "shared domains go to anybody, however many it holds", "fedsim/tasks/partition.py",
        "np.lexsort((luck, (weights > 0).sum(axis=1)))", "np.argsort(luck)",
        ("tests/tasks/test_partition.py",),
    ),
    Mutant(
        "partition", "shared domains go to the clients of the lowest id", "fedsim/tasks/partition.py",
        "np.lexsort((luck, (weights > 0).sum(axis=1)))", "np.argsort((weights > 0).sum(axis=1), kind='stable')",
        ("tests/tasks/test_partition.py",),
    ),
    Mutant(
        "partition", "a column of weights does not sum to one", "fedsim/tasks/partition.py",
        "weights[chosen, column] = 1.0 / holders", "weights[chosen, column] = 1.0",
        ("tests/tasks/test_partition.py",),
    ),
    Mutant(
        "partition", "rows are given twice", "fedsim/tasks/dataset.py",
        "                clients[owner].append(question)\n", "                clients[owner] += [question, question]\n",
        ("tests/tasks/test_dataset.py",),
    ),
    Mutant(
        "partition", "questions of one split come again in the next", "fedsim/tasks/dataset.py",
        "            start += parts[name]\n", "",
        ("tests/tasks/test_dataset.py",),
    ),
    Mutant(
        "partition", "exemplars have the public corpus's mistakes", "fedsim/tasks/dataset.py",
        '    splits["public"] = _spoil(config, names, splits["public"], seed)\n',
        '    for spoiled in ("public", "auxiliary"):\n        splits[spoiled] = _spoil(config, names, splits[spoiled], seed)\n',
        ("tests/tasks/test_dataset.py",),
    ),
    Mutant(
        "partition", "the public corpus has no mistakes", "fedsim/tasks/dataset.py",
        '    splits["public"] = _spoil(config, names, splits["public"], seed)\n', "",
        ("tests/tasks/test_dataset.py",),
    ),
    Mutant(
        "partition", "whose trusted answer is known decides whether it is wrong", "fedsim/tasks/dataset.py",
        'streams.uniform(seed, "trusted noise", question.text)', 'streams.uniform(seed, "trusted answer", question.text)',
        ("tests/tasks/test_dataset.py",),
    ),
    Mutant(
        "partition", "splits come in the order of their domains", "fedsim/tasks/dataset.py",
        "return {name: shuffled(rows, seed, name) for name, rows in splits.items()}", "return splits",
        ("tests/tasks/test_dataset.py",),
    ),
    Mutant(
        "partition", "one wording of a fact is taught and another is tested", "fedsim/tasks/file_splits.py",
        "(bool(row.fact), row.fact or row.question)", "(False, row.question)",
        ("tests/tasks/test_dataset.py",),
    ),
    Mutant(
        "partition", "a split that rows name is filled up with others", "fedsim/tasks/file_splits.py",
        "if rest and name not in named else 0", "if rest else 0",
        ("tests/tasks/test_dataset.py",),
    ),
    Mutant(
        "partition", 'all splits are shuffled alike', "fedsim/tasks/file_splits.py",
        'streams.generator(seed, "split order", name)', 'streams.generator(seed, "split order")',
        ('tests/tasks/test_dataset.py::test_every_split_is_shuffled_by_its_own_luck',),
    ),
]  # fmt: skip

MUTANTS: tuple[Mutant, ...] = (
    *LINK, *STALENESS, *BYTES, *ADVANTAGES, *FUSION, *SELECTION,
    *RESUME, *INVARIANTS, *DEADLINES, *HAZARDS, *COST, *PARTITION,
)  # fmt: skip

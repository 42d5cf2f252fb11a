"""Who is told from whom by asking (leakage/replies.py), of clients that know their own rows by heart, or know nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from fedsim.experiment.build import client_states
from fedsim.experiment.leakage.replies import by_asking
from fedsim.experiment.leakage.suspects import suspects
from fedsim.models.interfaces import Components
from fedsim.protocols.distil import Config as Distil
from fedsim.protocols.fedgrpo import Config as FedGrpo
from tests.samples.fakes import SPEC, FakeEvaluator, question, task_data

OWN = tuple(tuple(question("ab"[i % 2], 1000 * client + i) for i in range(20)) for client in (1, 2))
UNSEEN = tuple(question("ab"[i % 2], 5000 + i) for i in range(60))
WIRES = {
    "rewards": FedGrpo(wire="scores_up", group_size=4),
    "answers": FedGrpo(wire="answers_up", group_size=4),
    "distil": Distil(),
}


class ByHeart(FakeEvaluator):
    """A client's model that knows these rows and no other."""

    def __init__(self, rows):
        self.rows = {row.text: row.answer for row in rows}
        super().__init__(score=lambda text, candidate: 0.9 if self.rows.get(text) == candidate else 0.1)

    def answers(self, questions):
        return [self.rows.get(text, "?") for text in questions]


def asked(wire, known):
    """What a choosing server finds on this wire, with clients that know ``known``."""
    data = replace(task_data(num_clients=2), private=OWN, validation=(), test=UNSEEN)
    evaluators = [ByHeart(rows) for rows in known]
    components = Components(data, None, FakeEvaluator(), evaluators, SPEC, (SPEC,), {})
    scenario = SimpleNamespace(protocol=WIRES[wire], seed=0)
    rows = list(suspects(components, 0, 12))
    return by_asking(scenario, components, client_states(scenario, components), rows)


@pytest.mark.parametrize("wire", WIRES)
def test_a_choosing_server_tells_every_row_that_a_client_knows_by_heart(wire):
    for attack in asked(wire, OWN):
        assert (attack.source, attack.server) == ("answers" if wire == "distil" else wire, "choosing")
        assert (attack.result.auc.value, attack.result.tpr.value) == (1.0, 1.0)
        assert attack.result.num_members == attack.result.num_others == 24


def test_clients_that_know_other_rows_tell_nothing():
    for attack in asked("answers", OWN[::-1]):
        assert (attack.result.auc.value, attack.result.tpr.value) == (0.5, 0.0)


def test_members_and_others_are_as_many_in_every_domain_and_of_nobody_elses_rows():
    data = replace(task_data(num_clients=2), private=OWN, validation=UNSEEN[:4], test=UNSEEN[4:11])
    rows = list(suspects(Components(data, None, None, [], SPEC, (SPEC,), {}), 0, 12))
    for client_id in (0, 1):
        for domain, most in (("a", 6), ("b", 5)):
            here = [one for one in rows if one.client_id == client_id and one.row.domain == domain]
            members = [one.row for one in here if one.is_member]
            assert len(here) == 2 * len(members) and 0 < len(members) <= most
            assert set(members) <= set(OWN[client_id])
            assert {one.row for one in here if not one.is_member} <= set(UNSEEN)

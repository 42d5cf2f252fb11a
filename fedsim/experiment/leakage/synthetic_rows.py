"""The attack on synthetic rows. There is nothing that a server could choose: a client's rows depend on no message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedsim.experiment.leakage.suspects import Attack, Suspect, attack_on_rows
from fedsim.models.interfaces import Components
from fedsim.privacy.membership import likeness

if TYPE_CHECKING:
    from fedsim.scenario.schema import Scenario


def by_synthetic_rows(scenario: Scenario, components: Components, rows: Sequence[Suspect]) -> Attack:
    """Whether a row stood behind the client's synthetic rows: how like the most alike of them is (character trigrams)."""
    synthesiser, settings = components.synthesiser, scenario.protocol.synthesis
    assert synthesiser is not None
    made: dict[int, tuple[tuple[str, str], ...]] = {}
    for client_id, own in enumerate(components.data.private):
        count = settings.num_rows(len(own))
        made[client_id] = synthesiser.synthesise(client_id, own, count).rows if count else ()
    told = [one for one in rows if made[one.client_id]]
    alike = [likeness((one.row.text, one.row.taught), made[one.client_id]) for one in told]
    how = "likeness to the most alike synthetic row"
    return attack_on_rows("synthetic", "honest", how, told, alike, scenario.seed)

"""Keys of earlier versions that are gone, and what to write instead.

A scenario says what a run is, so an old key is never read as something else: it is refused with the line that replaces it. Only
keys that a released or documented version had stand here.
"""

from __future__ import annotations

from fedsim.config.yaml import Document
from fedsim.errors import ScenarioError

OLD_KEYS: dict[tuple[str, str], tuple[tuple[str, ...], str]] = {
    ("protocol", "gather_deadline"): (
        ("dpsda_fl", "central_pooled"),
        "write protocol.stragglers: {policy: deadline, deadline: ...}",
    ),
    ("compute", "processes"): ((), "leave it out: a run's models compute in one process"),
}
"""Of which protocols (empty: of all) a key was, by where it stood, and what to write now."""


def refuse_old_keys(document: Document, protocol: str) -> None:
    """Refuse a key that an earlier version had in a scenario with this protocol.

    Raises:
        ScenarioError: the document holds one; the message names the line and what replaces the key.
    """
    for (section, key), (protocols, instead) in OLD_KEYS.items():
        held = document.data.get(section)
        if (not protocols or protocol in protocols) and isinstance(held, dict) and key in held:
            origin = document.key_origin((section, key))
            raise ScenarioError(f"{origin}: {section}.{key} is a key of an earlier version; {instead}")

"""Keys of earlier versions that are gone, and what to write instead.

A scenario says what a run is, so an old key is never read as something else: it is refused with the line that replaces it. Only
keys that a released or documented version had stand here.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedsim.config.yaml import Document, Path
from fedsim.errors import ScenarioError


@dataclass(frozen=True, slots=True)
class OldKey:
    """A key that is gone.

    Attributes:
        path: where it stood.
        protocols: of which protocols; empty for keys that do not belong to one.
        instead: what to write now.
    """

    path: Path
    protocols: tuple[str, ...]
    instead: str


OLD_KEYS = (
    OldKey(
        ("protocol", "gather_deadline"),
        ("dpsda_fl", "central_pooled"),
        "write protocol.stragglers: {policy: deadline, deadline: ...}",
    ),
    OldKey(("compute", "processes"), (), "leave it out: a run's models compute in one process"),
)


def refuse_old_keys(document: Document, protocol: str) -> None:
    """Refuse a key that an earlier version had.

    Args:
        document: a scenario as read.
        protocol: the name of its protocol.

    Raises:
        ScenarioError: it holds one; the message names the line and what replaces the key.
    """
    for old in OLD_KEYS:
        if (not old.protocols or protocol in old.protocols) and _holds(document, old.path):
            name = ".".join(map(str, old.path))
            raise ScenarioError(
                f"{document.key_origin(old.path)}: {name} is a key of an earlier version; {old.instead}"
            )


def _holds(document: Document, path: Path) -> bool:
    place: object = document.data
    for step in path:
        if not isinstance(place, dict) or step not in place:
            return False
        place = place[step]
    return True

"""Which rows of an own file go to which split.

A split that rows name holds exactly those rows; rows with a client are private. The other splits are cut by ``tasks.sizes``
from the rows that name none; where there are no such rows, those splits are empty. All wordings of a fact are cut into one
split, so that no question that is tested is asked elsewhere in other words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from fedsim.errors import DataFileError
from fedsim.sim import streams
from fedsim.tasks.config import SPLITS
from fedsim.tasks.files import FileRow

_Row = TypeVar("_Row")

MOST_LOOKS = 32
"""Extra sets of questions, each of which is measured whenever the test questions are."""

_NEEDED = ("auxiliary", "pool", "validation", "test")


def split_rows(
    path: str, rows: Sequence[FileRow], sizes: Mapping[str, int], num_clients: int, seed: int
) -> dict[str, list[FileRow]]:
    """The rows of every split and of every extra set, in random order; private rows with a client in that of the file.

    Args:
        path: the file, for messages.
        rows: those of the file.
        sizes: questions of every split that no row names.
        num_clients: K.
        seed: root of every draw.

    Raises:
        DataFileError: an unknown client, some private rows with and others without a client, too few rows for the sizes, or
            none for exemplars, pool, validation or test.
    """
    _check_clients(rows, num_clients)
    named: dict[str, list[FileRow]] = {}
    for row in rows:
        if row.split is not None:
            named.setdefault(row.split, []).append(row)
    looks = sorted(set(named) - set(SPLITS))
    if len(looks) > MOST_LOOKS:
        raise DataFileError(
            f"{path}: names {len(looks)} extra sets ({', '.join(looks[:3])}, ...); at most {MOST_LOOKS}"
        )
    rest = [row for row in rows if row.split is None]
    wanted = {name: sizes[name] if rest and name not in named else 0 for name in SPLITS}
    splits: dict[str, list[FileRow]] = _cut(path, rest, wanted, seed)
    for name, own in named.items():
        splits[name] = own if own[0].clients else shuffled(own, seed, name)
    if missing := [name for name in _NEEDED if not splits[name]]:
        raise DataFileError(
            f"{path}: has no question for {' and '.join(missing)}; name the split in some rows, or leave rows without a split, "
            "from which tasks.sizes are cut"
        )
    return splits


def shuffled(rows: Sequence[_Row], seed: int, name: str) -> list[_Row]:
    """The rows in a random order of their own."""
    return [rows[i] for i in streams.generator(seed, "split order", name).permutation(len(rows))]


def _check_clients(rows: Sequence[FileRow], num_clients: int) -> None:
    private = [row for row in rows if row.split == "private"]
    for row in private:
        for client in row.clients:
            if client >= num_clients:
                raise DataFileError(
                    f"{row.place}: client is {client}; must be below {num_clients}, the number of clients"
                )
        if bool(row.clients) != bool(private[0].clients):
            raise DataFileError(
                f"{row.place}: this private row names {'a' if row.clients else 'no'} client, and that of "
                f"{private[0].place.beside(row.place)} {'none' if row.clients else 'one'}; all must, or none"
            )


def _cut(path: str, rest: Sequence[FileRow], sizes: Mapping[str, int], seed: int) -> dict[str, list[FileRow]]:
    listed = ", ".join(f"{name} {size}" for name, size in sizes.items() if size or name != "format")
    if len(rest) < sum(sizes.values()):
        raise DataFileError(
            f"{path}: {len(rest)} questions without a client or a split; tasks.sizes ask for {sum(sizes.values())} ({listed}); "
            "lower tasks.sizes"
        )
    facts: dict[tuple[bool, str], list[FileRow]] = {}
    for row in rest:
        facts.setdefault((bool(row.fact), row.fact or row.question), []).append(row)
    groups = iter(shuffled(list(facts.values()), seed, "file"))
    splits: dict[str, list[FileRow]] = {}
    for name in SPLITS:
        rows: list[FileRow] = []
        while len(rows) < sizes[name]:
            group = next(groups, None)
            if group is None:
                raise DataFileError(
                    f"{path}: {len(rest)} questions about {len(facts)} facts cannot be cut into tasks.sizes ({listed}) so that "
                    "every fact stays in one split; lower tasks.sizes"
                )
            rows += group[: sizes[name] - len(rows)]
        splits[name] = rows if len(facts) == len(rest) else shuffled(rows, seed, name)
    return splits

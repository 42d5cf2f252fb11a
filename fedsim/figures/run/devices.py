"""Which devices a run had: also those that never came online and so left no record."""

from __future__ import annotations

import json

from fedsim.errors import RunFolderError
from fedsim.records.run import Run


def device_classes(run: Run) -> dict[int, str]:
    """Device class of every client, by id, from the records and from ``clients.json`` where there is one.

    Raises:
        RunFolderError: ``clients.json`` is not a list of clients.
    """
    classes: dict[int, str] = {}
    path = run.folder / "clients.json"
    if path.exists():
        try:
            classes = {
                int(row["client_id"]): str(row["device_class"]) for row in json.loads(path.read_text())
            }
        except (ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{path} is not a list of clients") from error
    for name in ("presence", "outcomes"):
        known = run.scan(name).select("client_id", "device_class").unique().collect(engine="streaming")
        classes |= dict(zip(known["client_id"].to_list(), known["device_class"].to_list(), strict=True))
    return dict(sorted(classes.items()))

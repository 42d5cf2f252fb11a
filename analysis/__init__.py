"""What this repository concludes from its own evidence: the pages in `docs/` that `make pages` writes. Not installed.

In reading order: ``results`` (small tables of finished runs), ``pages`` (writes them all), ``evidence``, ``claims``,
``paper``, ``learning`` and ``dropout`` (what stands in them), ``readme`` (results in README), ``schedule_map/`` (where not
waiting helps), ``tables`` and ``figures`` (how they look), ``planted`` (mistakes put in on purpose), ``command`` (their
command lines).
"""

"""What this repository concludes from its own evidence: the pages in `docs/` that `make evidence` writes. Not installed.

In reading order: ``controls``, ``dropout``, ``overhead``, ``learning`` (a page of four sections: ``schedules/``,
``losses/``, ``hostile/``, ``privacy/``), ``planted`` (mistakes put in on purpose), ``finished`` (what is read),
``provenance``, ``command`` (their command lines).
"""

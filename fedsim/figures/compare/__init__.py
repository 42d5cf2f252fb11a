"""A comparison: accuracy over time, bytes and joules, what it takes to reach a target, and the page of them.

In reading order: ``report`` (the page), ``runs`` (what is read), ``axes``, ``curves``, ``bytes``, ``front``,
``target``.
"""

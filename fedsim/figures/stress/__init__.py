"""A stress sweep: maps over its axes, and why runs were lost.

In reading order: ``report`` (the page), ``runs`` (what is read), ``maps``, ``why``.
"""

"""A stress sweep: one scenario under every setting of some axes.

In reading order: ``file``, ``run``, ``endings``, ``rows``, ``losses`` (of what a run lost), ``pairs`` (levels held
against each other), ``pages``.
"""

"""How long a server waits for its clients: settings and policies.

In reading order: ``config``, ``policies``.
"""

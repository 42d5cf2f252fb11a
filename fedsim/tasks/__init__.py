"""Questions: domains, own question files, splits, partition over clients.

In reading order: ``questions``, ``config``, ``domains``, ``files``, ``matching``, ``mistakes``, ``dataset``,
``partition``.
"""

"""Questions: domains, own question files, splits, partition over clients.

In reading order: ``questions``, ``config``, ``domains``, ``files``, ``file_splits``, ``matching``, ``mistakes``,
``dataset``, ``partition``.
"""

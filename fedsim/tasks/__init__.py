"""Questions: domains, own question files, splits, partition over clients.

In reading order: ``questions``, ``config``, ``domains``, ``worked``, ``files``, ``matching``, ``mistakes``, ``dataset``,
``partition``.
"""

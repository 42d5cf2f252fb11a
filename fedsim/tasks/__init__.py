"""Questions: domains, own question files, splits, partition over clients.

In reading order: ``questions``, ``config``, ``domains``, ``worked``, ``sources``, ``file_keys``, ``files``, ``file_splits``,
``matching``, ``mistakes``, ``dataset``, ``partition``.
"""

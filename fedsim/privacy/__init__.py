"""What a release may reveal: mechanisms and their settings, the accounting behind their noise, ledgers, membership tests.

In reading order: ``config``, ``rewards`` (the mechanisms), ``accounting``, ``composition``, ``releases``,
``reward_ledger``, ``membership``.
"""

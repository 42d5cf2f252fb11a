"""Records: frozen rows of what happened, the log that keeps them, and every number as a sum over rows.

In reading order: ``rows``, ``log``, ``frames`` (rows as columns), ``metrics``, ``exact_sum``, ``totals``,
``summary``, ``headline``, ``invariants``, ``invariants_naive`` (the same rules, slow and obvious), ``parquet``,
``run_folder``, ``run`` (reading it back), ``story`` (one request told), ``archive``, ``source`` (what code is,
without its comments).
"""

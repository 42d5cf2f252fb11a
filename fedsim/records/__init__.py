"""Records: frozen rows of what happened, the log that keeps them, and every number as a sum over rows.

In reading order: ``rows``, ``log``, ``frames`` (append-only files of checksummed frames), ``metrics``, ``totals``,
``summary``, ``invariants``, ``invariants_naive`` (the same rules, slow and obvious), ``parquet``,
``provenance`` (by what a run was made), ``run_folder``, ``content_hashes`` (of what is kept between runs), ``run`` (reading
it back), ``looks`` (what was measured and what had been spent by then), ``story`` (one request told).
"""

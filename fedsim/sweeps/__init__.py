"""Many runs: comparisons and their tuning, stress sweeps, and the processes that perform them.

In reading order: ``compare/``, ``stress/``, ``stats``, ``code`` (the hash under which runs are kept),
``executors`` (who performs them), ``workers``, ``worker``, ``ray_workers``.
"""

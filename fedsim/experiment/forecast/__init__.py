"""What can be told before a run: a rough estimate, what one request takes, how unlike the devices are.

In reading order: ``estimate``, ``probe_run``, ``request_times``, ``heterogeneity``, ``device_table``.
"""

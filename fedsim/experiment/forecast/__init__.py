"""What can be told before a run: a rough estimate, how unlike the devices are, what each of them would take.

In reading order: ``estimate``, ``heterogeneity``, ``device_table``.
"""

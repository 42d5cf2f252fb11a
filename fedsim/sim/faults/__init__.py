"""What breaks on purpose: settings, windows of time, struck replies, and the plan of a run.

In reading order: ``config``, ``windows``, ``replies``, ``plan``.
"""

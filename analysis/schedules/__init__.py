"""Schedules of updates: is it worth not to wait?

In reading order: ``section``, ``runs``, ``tables``, ``passages``, ``figure``.
"""

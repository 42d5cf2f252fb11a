"""Losses and advantages, side by side.

In reading order: ``section``, ``figure``.
"""

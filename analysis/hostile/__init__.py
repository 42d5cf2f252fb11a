"""Hostile experts: which way of fusing rewards survives them.

In reading order: ``section``, ``runs``, ``detection``, ``noise``, ``figure``.
"""

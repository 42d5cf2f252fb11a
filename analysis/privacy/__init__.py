"""What privacy costs in accuracy, and what leaks.

In reading order: ``section``, ``runs``, ``figure``.
"""

"""A comparison: one scenario in several variants and seeds, with or without tuning.

In reading order: ``file``, ``outlook`` (what it will take), ``tuning``, ``run``, ``target`` (the first look that
reaches it), ``fairness`` (what is not alike), ``tables``.
"""

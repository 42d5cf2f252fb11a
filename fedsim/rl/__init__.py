"""Pure functions of reinforcement learning: one equation each.

In reading order: ``advantages``, ``losses``, ``discriminative``, ``scaling``, ``fusion``, ``reliability``,
``routing``.
"""

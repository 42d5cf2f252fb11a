"""Pure functions of reinforcement learning: one equation each.

In reading order: ``advantages``, ``losses``, ``discriminative``, ``scaling``, ``fusion``, ``reliability``,
``reward_router`` (learned weights of scores).
"""

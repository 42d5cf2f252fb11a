"""The devices of a scenario: what `fedsim devices` draws.

In reading order: ``figure``.
"""

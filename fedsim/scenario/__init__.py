"""A scenario: its keys, how a file is read and composed, and the page that documents it.

In reading order: ``schema``, ``read``, ``named_worlds``, ``migrations``, ``docs``.
"""

"""One run: each figure a function from what it shows to a matplotlib figure, or None where there is nothing to draw.

In reading order: ``report`` (the page), ``learning``, ``traffic``, ``timeline``, ``partition``, ``confidence``,
``devices``.
"""

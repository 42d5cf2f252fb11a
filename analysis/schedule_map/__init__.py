"""Where it helps to step as rewards arrive: ratios of times over clients, spread of speed and the server's share.

In reading order: ``tables`` (a sweep becomes a small table, a table cells), ``section``, ``figure``, ``__main__``. Sections and
figures read nothing but tables, so a redraw needs no run.
"""

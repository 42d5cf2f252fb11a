"""What people write becomes checked values: strict YAML, units, limits, and errors of one line with file and line.

In reading order: ``strict`` (the settings model), ``units``, ``limits``, ``files``, ``csv_files``, ``yaml``, ``validation``.
"""

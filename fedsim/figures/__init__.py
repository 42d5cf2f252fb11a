"""What users are shown of run folders: figures, tables and pages. Reads finished runs, never models or protocols.

In reading order: ``draw``, ``run/``, ``compare/``, ``stress/``, ``devices/``, ``page`` (figures of a page),
``style``, ``fonts``, ``labels``, ``leakage``.
"""

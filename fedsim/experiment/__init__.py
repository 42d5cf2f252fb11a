"""One run: its components, the simulation, what is checked before it, and what follows from it.

In reading order: ``run``, ``components``, ``simulation``, ``preflight``, ``checks``, ``eligibility``, ``billed``,
``detection``, ``leakage``, ``replay/`` (resume, verify), ``forecast/`` (estimate, devices).
"""

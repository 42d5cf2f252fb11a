"""One run: its components, the simulation, what is checked before it, and what follows from it.

In reading order: ``run``, ``components``, ``simulation``, ``build`` (faults, edges, links, noise, limits), ``checks``,
``probe_run`` (what a protocol first asks), ``request_times``, ``device_memory`` (who can hold the model), ``billed``,
``detection``, ``leakage``, ``replay/`` (tape and journal), ``resume``, ``verify``, ``forecast/`` (estimate, devices).
"""

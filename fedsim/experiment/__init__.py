"""One run: its components, the simulation, what is checked before it, and what follows from it.

In reading order: ``run``, ``prepared`` (what follows from the settings alone), ``checks``, ``components`` (models and data),
``simulation``, ``build`` (links, clients' states, limits), ``journal`` (what a run keeps of itself), ``replay/`` (its tape),
``resume``, ``verify``, ``probe_run`` (what a protocol first asks), ``request_times``, ``device_memory`` (who can hold the
model), ``billed``, ``detection``, ``leakage/`` (attacks on a finished run), ``forecast/`` (estimate, devices).
"""

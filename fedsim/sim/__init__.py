"""Virtual time and the simulated world: an asyncio clock, a queue of events, keyed draws, devices, networks, faults.

In reading order: ``clock`` (asyncio on virtual time), ``timeline`` (its queue), ``handles``, ``deadlock`` (who waits
for whom), ``forbidden`` (what would break virtual time), ``streams`` (draws that are functions of keys), ``ar1``,
``lazy``, ``devices/``, ``network/``, ``faults/``, ``presets/``.
"""

"""How this machine is used: child processes, cores, Ray, when garbage is collected, and the settings of that.

In reading order: ``config``, ``cores``, ``children``, ``gc_policy``, ``ray_cluster``.
"""

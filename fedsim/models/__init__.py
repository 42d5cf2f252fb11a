"""Language models: what one is to a protocol, its settings, and two kinds of it, real ones (torch) and stand-ins for timing.

In reading order: ``interfaces``, ``sources``, ``config``, ``client_training_config``, ``folder``, ``cache``,
``pretrained``, ``timing/``,
``real/``.
"""

"""Devices: what they are, when they are there, how long work takes them and what it costs.

In reading order: ``config``, ``presets``, ``phones``, ``population``, ``profile``, ``architecture``, ``adapters``, ``cost``,
``device``, ``odds``, ``dropout``, ``correlate``, ``availability_config``, ``availability``,
``availability_trace``, ``sessions``, ``session_lengths``, ``cycles``, ``presence``, ``outages``, ``slowdown_config``,
``slowdown``.
"""

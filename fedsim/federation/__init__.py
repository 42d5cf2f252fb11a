"""The life of a request and what a protocol sees of it: clients, server, handlers, stragglers, hostile clients, text lengths.

In reading order: ``clients`` (what a protocol is given), ``server`` (what computes there), ``world`` (what a request runs
through), ``handlers`` (what a client answers with), ``request`` (its life), ``transfers`` (one way of it;
where bytes are charged), ``computation``, ``billed_sizes`` (how long texts and messages count), ``text_lengths``,
``stragglers/`` (how long a server waits), ``hostile_config``, ``hostile``.
"""

"""The life of a request and what a protocol sees of it: clients, server, handlers, stragglers, hostile clients, text lengths.

In reading order: ``clients`` (what a protocol is given), ``server`` (what computes there), ``world`` (what a request runs
through), ``handlers`` (what a client answers with), ``request`` (its life), ``leg`` (one way of it), ``computation``,
``billing``, ``text_lengths``, ``stragglers/``, ``hostile_config``, ``hostile``.
"""

"""The life of a request and what a protocol sees of it: clients, handlers, stragglers, hostile clients, lengths of texts.

In reading order: ``clients`` (what a protocol is given), ``world`` (what a request runs through), ``handlers`` (what
a client answers with), ``request`` (its life), ``leg`` (one way of it), ``computation``, ``billing``,
``text_lengths``, ``stragglers/``, ``hostile_config``, ``hostile``.
"""

"""The network: messages with their real encoded size, links that flows share, transport overhead.

In reading order: ``config``, ``wire`` (the messages), ``transport``, ``tcp``, ``rates``, ``link`` (flows that share
one), ``tree`` (links behind links), ``edges`` (relays).
"""

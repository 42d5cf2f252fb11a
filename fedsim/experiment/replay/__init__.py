"""Exact replay: what models said goes to a tape, so that a run can be resumed after a kill and verified afterwards.

In reading order: ``tape``, ``blobs``, ``checkpoints``, ``recorded_models``, ``origin``, ``diff``.
"""

"""Devices: what they are, when they are there, how long work takes them and what it costs."""

"""Presets shipped as package data: devices, links, architectures."""

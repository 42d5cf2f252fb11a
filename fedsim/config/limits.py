"""How much the program takes in from outside: every limit on a file, a text or a number that a user gives, in one place.

A limit is generous for what people write and small beside what a machine holds, so that no file can exhaust it: what goes
beyond is refused in one line (``docs/reliability.md`` has the table). The bounds of a single setting (a share is at
most 1) stand with its setting; here stand those that several share, and those that protect memory.
"""

from __future__ import annotations

# YAML: scenarios, comparisons, sweeps and --set
MAX_YAML_BYTES = 256 * 1024
MAX_YAML_VALUES = 20_000
MAX_DEPTH = 32
"""Levels of mappings and lists in a YAML file, and of keys in one ``--set``; anchors and aliases are not read at all."""
MAX_DIGITS = 18
"""Digits of a whole number in YAML and on the command line: what fits 64 bits."""

# Data files
MAX_DATA_BYTES = 256 * 2**20
"""Questions (a file, or all files of a data set's folder), devices and traces (CSV)."""
MAX_DATA_FILES = 1_000
"""Files of rows in a data set's folder."""
MAX_DATA_ROWS = 10_000_000
"""Rows of a Parquet or Arrow table, in which a few bytes can stand for many rows that are alike."""
MAX_LINE_CHARS = 100_000
"""Characters of one line, or of one text, of a question file."""
MAX_GRAPH_BYTES = 16 * 2**20
"""A GraphML file; one with a document type declaration (entities) is not read at all."""
MAX_JSON_BYTES = 64 * 2**20
"""A JSON file: manifest and summary of a run, a model's ``config.json``."""
MAX_JSON_DIGITS = 300
"""Digits of a whole number in JSON."""

# Counts that memory or time grow with
MAX_CLIENTS = 1_000_000
MAX_CLIENT_ID = 10_000_000
MAX_GROUP_SIZE = 1_024
MAX_TOKENS = 100_000
"""Tokens of one sampled answer."""
MAX_UNDER_WAY = 1_000_000
"""Questions, groups or clients of one round, update or buffer."""
MAX_BATCH = 1_000_000
"""Rows of one step."""
MAX_WIDTH = 65_536
"""Widths of a model that is trained from scratch; its layers, heads and adapters have `MAX_LAYERS`."""
MAX_LAYERS = 1_024
MAX_SEED = 2**53 - 1
"""Seeds are whole numbers that JSON keeps."""
MAX_PROCESSES = 1_024
MAX_COMPARED_RUNS = 10_000
MAX_SWEPT_RUNS = 100_000

# Time
MAX_VIRTUAL_S = 2.0**34
"""Every instant and length of time, in seconds (544 years): up to here two floats are less than two microseconds apart, while
a packet of 1,500 bytes takes 12 on a link of 1 Gbit/s. From 1e14 s on the clock cannot tell 10 ms, and what happens first is
chance. Unix time (1.8e9 s) is within."""

# Messages
MAX_ECHO_CHARS = 120
"""What an error repeats of a word on the command line."""
MAX_MESSAGE_CHARS = 2_000
"""One line on stderr."""

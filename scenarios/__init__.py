"""Scenarios that come with fedsim: ``fedsim run quickstart``. One file per question a user asks."""

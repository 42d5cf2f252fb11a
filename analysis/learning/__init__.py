"""The sections of ``docs/learning_evidence.md``: schedules, losses, hostile experts, privacy."""

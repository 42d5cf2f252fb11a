"""Figures and the report of a run: reads run folders only, never models or protocols."""

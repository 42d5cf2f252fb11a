"""Benchmarks: every speed that fedsim claims, as a ratio measured side by side in one run (`make bench`)."""

"""Many runs: comparisons, tuning, stress sweeps, and the processes that run them."""

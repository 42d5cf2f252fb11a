"""Pure functions of reinforcement learning: one equation each."""

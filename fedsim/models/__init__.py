"""Real language models: server policy and client evaluators. Imports torch; loaded only when fidelity is real."""

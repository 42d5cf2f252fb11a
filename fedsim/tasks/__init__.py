"""Questions: domains, own question files, splits, partition over clients."""

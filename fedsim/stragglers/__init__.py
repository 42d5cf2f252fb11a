"""How long a server waits for its clients: settings and policies."""

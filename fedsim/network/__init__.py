"""The network: messages with their real encoded size, links that flows share, transport overhead."""

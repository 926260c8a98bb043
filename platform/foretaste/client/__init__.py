"""What asks the service: typed calls, and a client that survives a bad network. Knows nothing of the platform."""

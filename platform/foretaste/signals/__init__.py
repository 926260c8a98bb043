"""What is computed of a history: one function for the batch path and the request path."""

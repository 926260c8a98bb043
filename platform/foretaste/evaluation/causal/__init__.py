"""What acting would cause: instruments made of randomised exposure, and who gains by being treated."""

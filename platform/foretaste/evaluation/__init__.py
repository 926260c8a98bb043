"""How good an answer is, beside what else could have been answered, and how sure we are."""

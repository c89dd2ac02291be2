"""A daemon from outside: launching one, finding it, and asking it."""

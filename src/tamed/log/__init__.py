"""The log: from a logging call to a line on disk."""

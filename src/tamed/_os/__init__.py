"""The bottom: calls of the kernel, and small texts, that several folders need."""

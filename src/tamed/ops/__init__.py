"""The operations endpoint: health, status and metrics over HTTP, in a process of its own."""

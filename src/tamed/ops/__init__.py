"""The operations endpoint: health, status and metrics over HTTP, in a separate process."""

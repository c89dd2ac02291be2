"""The client side of daemons: starting them, finding them, and sending them requests."""

"""Commands for daemons: launching them, finding them, and sending them requests."""

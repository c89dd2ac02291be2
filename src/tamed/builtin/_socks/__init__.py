"""The parts of the plugin ``socks``: its messages, the rules about targets, and UDP."""

"""The parts of the plugin ``ftp``."""

"""What the plugin ``ftp`` is made of."""

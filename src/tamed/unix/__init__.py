"""What Unix needs of a daemon, each part alone and synchronous."""

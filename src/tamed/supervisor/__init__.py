"""The supervisor process: it starts workers, owns their listening sockets and writes their log."""

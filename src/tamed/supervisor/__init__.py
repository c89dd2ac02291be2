"""The process that stays: it starts workers, holds their sockets and writes their log."""

"""Files over FTP (RFC 959, 2428, 3659): read-only for everybody, and more for users with a password."""

from tamed.builtin.ftp._plugin import Options, ftp

__all__ = ["Options", "ftp"]

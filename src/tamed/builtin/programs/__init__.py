"""Programs of any kind, for the services that run them: ``exec`` and ``inetd``."""

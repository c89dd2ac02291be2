"""The web: the files of a directory, as an application."""

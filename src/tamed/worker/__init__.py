"""The process that runs the application: a worker, or one that does everything alone."""

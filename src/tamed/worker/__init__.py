"""The process that runs the application: a worker of a supervisor, or a single process without one."""

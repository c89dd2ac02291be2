"""Services, groups of services, restart policies, timers, and the application."""

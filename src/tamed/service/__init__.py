"""What runs: services, services composed of services, restart policies, timers and the application."""

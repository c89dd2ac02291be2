"""The configuration: targets, deployment files and settings, and the job made from them."""

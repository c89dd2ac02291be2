"""What the operator wrote: targets, deployment files and settings, and the job they make."""

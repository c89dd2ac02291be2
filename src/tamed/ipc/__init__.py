"""What processes of ours say to each other: messages, channels, and what is handed over an exec."""

"""Communication between our processes: messages, channels, and the state that passes an exec."""

"""Communication between our processes: messages, channels, and the state handed over an exec."""

"""The web server: ASGI applications over HTTP/1.1 and WebSocket, as a service."""

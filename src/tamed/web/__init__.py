"""The web server: ASGI applications over HTTP/1.1, HTTP/2 and WebSocket, as a service."""

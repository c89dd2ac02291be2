"""Sends names to the counter: ``python count.py apples pears``. It sends again what is not confirmed."""

import socket
import sys

WAITS = [0.25, 0.5, 1, 2, 4, 8, 16]  # seconds for a confirmation, before the packet is sent again


def confirmed(client: socket.socket, packet: bytes) -> str:
    """Send a packet until its confirmation comes. Raises TimeoutError if none does."""
    number, _, _ = packet.partition(b" ")
    for wait in WAITS:
        client.settimeout(wait)
        client.send(packet)
        try:
            while not (answer := client.recv(2048)).startswith(number + b" "):
                pass  # a second confirmation of an earlier packet
        except TimeoutError:
            continue
        return answer.decode()
    raise TimeoutError("the counter does not answer")


if __name__ == "__main__":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", 10000))
        for number, name in enumerate(sys.argv[1:]):
            print(confirmed(client, f"{number} {name}".encode()), end="")

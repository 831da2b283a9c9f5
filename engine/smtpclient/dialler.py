"""How connections are opened: an argument of the relayer, so that tests can stand in for the network."""

import asyncio
import socket
from typing import Protocol

_BIND_ADDRESS_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT of ip(7), in socket from Python 3.12 on


class Dialler(Protocol):
    """Opens TCP connections to addresses; names were resolved before."""

    async def dial(self, address: str, port: int, timeout: float, source: str = "") -> socket.socket:
        """Give a connected, non-blocking socket. Raises OSError; TimeoutError after `timeout` seconds.

        `source` is the address of ours that it is connected from, "" any.
        """
        ...


class TcpDialler:
    """Opens real connections."""

    async def dial(self, address: str, port: int, timeout: float, source: str = "") -> socket.socket:
        """Connect to an IPv4 or IPv6 address within `timeout` seconds."""
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            # Commands are short and waited for one by one: nothing is gained by holding them back.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if source:
                # The port is chosen once it is known whom it is for: else there were some 28,000 for the whole world.
                sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
                sock.bind((source, 0))
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        return sock

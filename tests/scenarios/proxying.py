"""What a proxy says first of the client it brings: the PROXY protocol, versions 1 and 2, as tests write it."""

from ipaddress import ip_address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21
HERE = {4: "198.51.100.1", 6: "2001:db8::1"}  # where the proxy took the connection


def line(client: str) -> bytes:
    """Version 1."""
    version = ip_address(client).version
    return f"PROXY TCP{version} {client} {HERE[version]} 56324 25\r\n".encode()


def block(client: str = "", *, command: int = PROXY, more: bytes = b"", family: int | None = None) -> bytes:
    """Version 2; without a client it names none. `more` stands behind the addresses, as TLVs do."""
    addresses, kind = b"", 0x00
    if client:
        address = ip_address(client)
        addresses = address.packed + ip_address(HERE[address.version]).packed + b"\xdc\x04\x00\x19"
        kind = {4: 0x11, 6: 0x21}[address.version]
    body = addresses + more
    return SIGNATURE + bytes([command, kind if family is None else family]) + len(body).to_bytes(2) + body


def tlv(kind: int, value: bytes) -> bytes:
    """One of what may stand behind the addresses of version 2."""
    return bytes([kind]) + len(value).to_bytes(2) + value

"""Python runs this first in every process of a test's cluster: whoever leaves this machine fails."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

_connect = socket.socket.connect


def connect(self: socket.socket, address: Any) -> None:
    # A datagram socket's connect sends nothing; dask asks it for the machine's own address.
    if self.family in (socket.AF_INET, socket.AF_INET6) and self.type & socket.SOCK_STREAM:
        host = address[0]
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise AssertionError(f"a test tried to use the network: {address}")
    _connect(self, address)


socket.socket.connect = connect  # type: ignore[method-assign]

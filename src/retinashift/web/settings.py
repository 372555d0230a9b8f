"""What a page may do: address, limits, checkpoint. Checked before anything is opened."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

CREDENTIALS_VARIABLE = "RETINASHIFT_AUTH"
"""Environment variable for NAME:PASSWORD; unlike an argument it does not show in the list of processes."""


@dataclass(frozen=True)
class PageSettings:
    """How the page is served.

    Raises:
        ValueError: an address other than this machine's own without credentials, or a value outside its range.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    """0 takes any free port."""
    credentials: str = ""
    """NAME:PASSWORD, asked for by HTTP basic authentication; "" asks nobody."""
    checkpoint: str = ""
    """Folder; "" is the shipped checkpoint."""
    device: str = "auto"
    max_upload: int = 64 * 2**20
    """Bytes of one request, files and all."""
    max_stored: int = 4 * 2**30
    """Bytes that uploads and results together may take on disk."""
    max_pixels: int = 8_000_000
    """Width times height of one photograph as uploaded."""
    max_files: int = 32
    """Photographs in one job."""
    max_waiting: int = 16
    """Jobs that run or wait; more are refused."""

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.credentials:
            raise ValueError(
                f"{self.host} can be reached from other machines; give --auth NAME:PASSWORD (or {CREDENTIALS_VARIABLE})"
                ", or leave --host at 127.0.0.1"
            )
        name, _, password = self.credentials.partition(":")
        if self.credentials and not (name and password):
            raise ValueError("--auth must be NAME:PASSWORD, neither of them empty")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}; 0 (any free one) to 65535 are allowed")
        for field in ("max_upload", "max_stored", "max_pixels", "max_files", "max_waiting"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}; it must be at least 1")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; other names than localhost are not looked up.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""The requester of a run or message: the identity that limits are counted by. It is never logged, stored or sent."""

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Requester:
    """A visitor's id, None without a cookie, and an address, None where it is unknown."""

    visitor: str | None = None
    address: str | None = None

    @property
    def name(self) -> str | None:
        """The key that runs are counted by."""
        return self.visitor or self.network

    @property
    def network(self) -> str | None:
        """The IPv4 address, or the IPv6 network of one subscriber: 64 bits."""
        try:
            found = ipaddress.ip_address(self.address or "")
        except ValueError:
            return self.address
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
            return str(ipaddress.ip_network((found, 64), strict=False))
        return str(getattr(found, "ipv4_mapped", None) or found)

"""Who asks: what runs and messages are counted by. Never logged, stored or told."""

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks: the visitor's id, None without cookie, and the address, None where it is not known."""

    visitor: str | None = None
    address: str | None = None

    @property
    def name(self) -> str | None:
        """What their runs are counted by."""
        return self.visitor or self.network

    @property
    def network(self) -> str | None:
        """The address, of IPv6 the network that one subscriber has: 64 bits."""
        try:
            found = ipaddress.ip_address(self.address or "")
        except ValueError:
            return self.address
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
            return str(ipaddress.ip_network((found, 64), strict=False))
        return str(getattr(found, "ipv4_mapped", None) or found)

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone


@dataclass(frozen=True)
class Certificate:
    serial_number: str
    common_name: str
    issued_at: datetime
    expires_at: datetime

    @classmethod
    def from_answer(cls, data: dict) -> Certificate:
        """The certificate in the `data` of an answer; KeyError or ValueError where it is none."""
        certificate = cls(
            serial_number=str(data["serial_number"]),
            common_name=str(data["common_name"]),
            issued_at=datetime.fromtimestamp(int(data["not_before"]), timezone.utc),
            expires_at=datetime.fromtimestamp(int(data["expiration"]), timezone.utc),
        )
        if certificate.expires_at <= certificate.issued_at:
            raise ValueError("a certificate that expires before it is issued")
        return certificate

    @property
    def lifetime(self) -> timedelta:
        return self.expires_at - self.issued_at

    def is_valid(self, at: datetime) -> bool:
        return self.issued_at <= at < self.expires_at

    def needs_renewal(self, at: datetime) -> bool:
        """True once two thirds of the lifetime are over, so that a failed attempt leaves time for another."""
        return at >= self.issued_at + self.lifetime

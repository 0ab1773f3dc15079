from __future__ import annotations

import os
from datetime import datetime, timezone

import requests

from .certificate import Certificate


class VaultError(Exception):
    """The service said no. `status` is that of HTTP."""

    def __init__(self, status: int, errors: list[str]) -> None:
        super().__init__(f"{status}: {', '.join(errors) or 'no reason given'}")
        self.status = status
        self.errors = errors


class Client:
    """Issues, reads, renews and revokes certificates of one role."""

    def __init__(self, address: str, token: str, role: str = "web", timeout: float = 10.0) -> None:
        self.address = address.rstrip("/")
        self.role = role
        self.timeout = timeout
        self.session = requests.Session()
        self.session.headers["X-Vault-Token"] = token

    @classmethod
    def from_environment(cls, **settings) -> Client:
        """From VAULT_ADDR and VAULT_TOKEN, as Vault's own tools have it."""
        return cls(os.environ["VAULT_ADDR"], os.environ["VAULT_TOKEN"], **settings)

    def issue(self, common_name: str, ttl: str = "72h") -> Certificate:
        data = self._ask("POST", f"pki/issue/{self.role}", {"common_name": common_name, "ttl": ttl})
        return Certificate.from_answer(data)

    def read(self, serial_number: str) -> Certificate:
        return Certificate.from_answer(self._ask("GET", f"pki/cert/{serial_number}"))

    def revoke(self, serial_number: str) -> None:
        self._ask("POST", "pki/revoke", {"serial_number": serial_number})

    def renew(self, certificate: Certificate, at: datetime | None = None) -> Certificate:
        """Another certificate of the same name where this one is due, else the same one."""
        if not certificate.needs_renewal(at or datetime.now(timezone.utc)):
            return certificate
        return self.issue(certificate.common_name)

    def _ask(self, method: str, path: str, body: dict | None = None) -> dict:
        answer = self.session.request(method, f"{self.address}/v1/{path}", json=body, timeout=self.timeout)
        if answer.status_code >= 400:
            raise VaultError(answer.status_code, _errors(answer))
        return answer.json()["data"]


def _errors(answer: requests.Response) -> list[str]:
    try:
        return [str(error) for error in answer.json()["errors"]]
    except (ValueError, KeyError, TypeError):
        return []

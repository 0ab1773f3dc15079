"""Client for the certificate endpoints of a Vault-like service."""

from .certificate import Certificate
from .client import Client, VaultError

__all__ = ["Certificate", "Client", "VaultError"]

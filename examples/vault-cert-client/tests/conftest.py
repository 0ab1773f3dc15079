import pytest

from vault_cert_client import Client


@pytest.fixture
def client():
    """Against the service that VAULT_ADDR names, with the token in VAULT_TOKEN."""
    return Client.from_environment()

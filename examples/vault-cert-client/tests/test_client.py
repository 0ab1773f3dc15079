"""Against the staging service."""

from datetime import timedelta

import pytest

from vault_cert_client import Client, VaultError


def test_issue(client):
    certificate = client.issue("web.staging.example", ttl="24h")
    assert certificate.common_name == "web.staging.example"
    assert certificate.lifetime == timedelta(hours=24)


def test_read_what_was_issued(client):
    certificate = client.issue("api.staging.example")
    assert client.read(certificate.serial_number) == certificate


def test_renew(client):
    certificate = client.issue("db.staging.example")
    early = certificate.issued_at + timedelta(hours=1)
    late = certificate.issued_at + timedelta(hours=60)
    assert client.renew(certificate, at=early) is certificate
    renewed = client.renew(certificate, at=late)
    assert renewed.serial_number != certificate.serial_number, "12 hours before its end a certificate is renewed"


def test_revoked_certificates_are_not_found(client):
    certificate = client.issue("old.staging.example")
    client.revoke(certificate.serial_number)
    with pytest.raises(VaultError) as refused:
        client.read(certificate.serial_number)
    assert refused.value.status == 404


def test_names_outside_the_role_are_refused(client):
    with pytest.raises(VaultError) as refused:
        client.issue("www.elsewhere.example")
    assert refused.value.status == 400


def test_an_unknown_role_is_refused():
    with pytest.raises(VaultError) as refused:
        Client.from_environment(role="database").issue("web.staging.example")
    assert refused.value.status == 404

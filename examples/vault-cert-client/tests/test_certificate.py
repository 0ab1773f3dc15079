from datetime import datetime, timedelta, timezone

import pytest

from vault_cert_client import Certificate

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
CERTIFICATE = Certificate("01", "web.staging.example", START, START + timedelta(hours=72))


def test_valid_between_its_times():
    assert not CERTIFICATE.is_valid(START - timedelta(seconds=1))
    assert CERTIFICATE.is_valid(START)
    assert not CERTIFICATE.is_valid(START + timedelta(hours=72))


def test_times_the_wrong_way_round_are_refused():
    with pytest.raises(ValueError):
        Certificate.from_answer({"serial_number": "01", "common_name": "a", "not_before": 2, "expiration": 1})

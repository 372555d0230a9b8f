"""Which addresses and limits a page accepts."""

import pytest

from retinashift.web.settings import PageSettings


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_other_addresses_need_a_password(host):
    with pytest.raises(ValueError, match="--auth NAME:PASSWORD"):
        PageSettings(host=host)
    assert PageSettings(host=host, credentials="ward:secret").host == host


@pytest.mark.parametrize("credentials", ["ward", "ward:", ":secret"])
def test_half_a_password_is_refused(credentials):
    with pytest.raises(ValueError, match="neither of them empty"):
        PageSettings(credentials=credentials)


def test_nothing_asks_for_a_password_on_this_machine():
    assert PageSettings().host == "127.0.0.1"

"""`muster quickstart`: everything made, trusted and linked; and nothing made twice."""

from __future__ import annotations

import json

import httpx2

from .conftest import PEM

CA_ID = "subordinateca-muster-devices"


def test_it_prints_what_the_contract_says(muster, server, ready_file):
    """The names that users and tests rely on, all of them and no others."""
    status, out, err = muster("quickstart", "--json")
    assert (status, err) == (0, "")
    file = ready_file.parent / "quickstart-ca.pem"
    assert json.loads(out) == {
        "ca": {
            "id": CA_ID,
            "template_id": "template-1",
            "name": "Muster Devices",
            "certificate_file": str(file),
        },
        "hub": {
            "name": "muster-hub",
            "hostname": "localhost",
            "connection_string": "HostName=localhost:8443;"
            "SharedAccessKeyName=iothubowner;SharedAccessKey=a2V5a2V5a2V5a2V5a2V5a2V5",
            "event_hub_connection_string": "Endpoint=sb://localhost/;"
            "SharedAccessKeyName=iothubowner;SharedAccessKey=a2V5a2V5a2V5a2V5a2V5a2V5;EntityPath=muster-hub",
        },
        "dps": {
            "name": "muster-dps",
            "id_scope": "0ne0000000A",
            "global_endpoint": "localhost",
            "service_connection_string": "HostName=localhost:8443;"
            "SharedAccessKeyName=provisioningserviceowner;SharedAccessKey=a2V5a2V5a2V5a2V5a2V5a2V5",
        },
        "enrollment_group": "muster-devices",
    }
    assert file.read_text() == PEM


def test_everything_trusts_and_is_linked(muster, server):
    """The CA is verified at both, the hub is linked by its own name, the group names the CA."""
    muster("quickstart")
    uploaded = f"ca-{CA_ID}"
    for resource in ("IotHubs/muster-hub", "provisioningServices/muster-dps"):
        assert server.certificates[f"{resource}/{uploaded}"]["properties"]["isVerified"]
    (link,) = server.resources["provisioningServices/muster-dps"]["properties"]["iotHubs"]
    assert link["connectionString"].startswith("HostName=localhost;")
    group = server.groups["muster-devices"]
    assert group["attestation"]["x509"]["caReferences"] == {"primary": uploaded}
    assert group["iotHubs"] == ["localhost"]


def test_repeating_it_makes_nothing_new(muster, server):
    """Safe to repeat, and the output is the same."""
    first = muster("quickstart", "--json")
    writes = list(server.writes)
    assert muster("quickstart", "--json") == first
    assert server.writes == writes


def test_names_can_be_chosen(muster, server, tmp_path):
    """Each resource's, and the certificate's file."""
    file = tmp_path / "ca.pem"
    options = ("--ca", "A", "--hub", "h", "--dps", "d", "--group", "g")
    assert muster("quickstart", *options, "--certificate-file", str(file))[0] == 0
    assert server.writes[:3] == ["ca A", "IotHubs/h", "provisioningServices/d"]
    assert file.read_text() == PEM
    assert list(server.groups) == ["g"]


def test_the_table_has_no_keys(muster, server):
    """A screen is looked at by others; only --json shows secrets."""
    status, out, _ = muster("quickstart")
    assert status == 0
    assert "0ne0000000A" in out
    assert "a2V5" not in out


def test_it_stops_at_the_first_refusal(muster, server):
    """Exit 1, the reason, and nothing after it."""
    server.refuse["/provisioningServices"] = httpx2.Response(409, text="Error: name is taken")
    status, out, err = muster("quickstart")
    assert (status, out) == (1, "")
    assert "name is taken" in err
    assert server.groups == {}


def test_an_unwritable_certificate_file_is_misuse(muster, server, tmp_path):
    """The file is named."""
    status, _, err = muster("quickstart", "--certificate-file", str(tmp_path / "no" / "ca.pem"))
    assert status == 2
    assert "ca.pem: No such file or directory" in err

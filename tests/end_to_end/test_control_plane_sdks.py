"""The official management and identity SDKs, unmodified, against the control plane over TLS."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.identity import (
    CertificateCredential,
    ClientSecretCredential,
    DefaultAzureCredential,
    ManagedIdentityCredential,
)
from azure.mgmt.iothub import IotHubClient
from azure.mgmt.iothubprovisioningservices import IotDpsClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from tests.support.server import MusterProcess, running

from muster.clock import SystemClock
from muster.identity.applications import Applications
from muster.store.database import Database
from muster.store.principals import SqlApplicationStore

pytestmark = pytest.mark.end_to_end

NODE_MODULES = Path(__file__).parents[2] / "node_modules"
GROUP = "muster"
ARM = "https://management.azure.com/.default"
HUB_BODY = {"location": "local", "sku": {"name": "S1", "capacity": 1}}
_AZURE_VARIABLES = [
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "AZURE_AUTHORITY_HOST",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_TOKEN_CREDENTIALS",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "MSI_SECRET",
]


@dataclass
class Running:
    """A running control plane."""

    url: str
    ca_file: Path
    tenant_id: str
    client_id: str
    client_secret: str
    object_id: str
    identity_header: str
    subscription_id: str
    client_pem: Path


def client_certificate(path: Path) -> bytes:
    """Write key and certificate of a client to *path*; return the certificate's DER."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "station")])
    certificate = sign_certificate(name, key.public_key(), name, key, ca=False)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return certificate.public_bytes(Encoding.DER)


def sign_certificate(
    subject: x509.Name, public_key: Any, issuer: x509.Name, key: Any, *, ca: bool
) -> x509.Certificate:
    """Return a certificate that is good for a day."""
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


class Authority:
    """A CA that a test uploads."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = sign_certificate(
            self.name, self.key.public_key(), self.name, self.key, ca=True
        )

    @property
    def der(self) -> bytes:
        """The CA certificate."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def text(self) -> str:
        """The CA certificate as the hub's SDK wants it."""
        return base64.b64encode(self.der).decode()

    def prove(self, code: str) -> bytes:
        """Return a certificate that this CA signed for *code*."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, code)])
        leaf = sign_certificate(subject, key.public_key(), self.name, self.key, ca=False)
        return leaf.public_bytes(Encoding.DER)


async def register_certificate(data: Path, ready: dict[str, Any], der: bytes) -> None:
    """Let the administrator sign in with a certificate too; the server must not be running."""
    database = Database(data / "muster.db")
    applications = Applications(
        SqlApplicationStore(database), SystemClock(), tenant_id=ready["tenant_id"]
    )
    try:
        await applications.add_certificate(ready["admin"]["client_id"], der, by="test")
    finally:
        await database.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of its own, whose administrator has a secret and a certificate."""
    directory = tmp_path_factory.mktemp("control")
    process = MusterProcess(directory, arguments=("--imds=on",))
    with running(process):
        first = process.ready
    der = client_certificate(directory / "client.pem")
    asyncio.run(register_certificate(process.data, first, der))
    with running(process):
        ready = process.ready
        yield Running(
            url=ready["endpoints"]["https"],
            ca_file=Path(process.ca_file),
            tenant_id=ready["tenant_id"],
            client_id=ready["admin"]["client_id"],
            client_secret=ready["admin"]["client_secret"],
            object_id=ready["admin"]["object_id"],
            identity_header=ready["managed_identity"]["header"],
            subscription_id=ready["subscription_id"],
            client_pem=directory / "client.pem",
        )


@pytest.fixture(autouse=True)
def environment(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the test's CA, and nothing of the developer's own Azure set-up."""
    for name in _AZURE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.ca_file))


@pytest.fixture
def credential(server: Running) -> Iterator[ClientSecretCredential]:
    """The administrator."""
    with ClientSecretCredential(
        server.tenant_id,
        server.client_id,
        server.client_secret,
        authority=server.url,
        disable_instance_discovery=True,
    ) as made:
        yield made


@pytest.fixture
def hubs(server: Running, credential: Any) -> Iterator[IotHubClient]:
    """The hub management SDK."""
    with IotHubClient(credential, server.subscription_id, base_url=server.url) as client:
        yield client


@pytest.fixture
def dps(server: Running, credential: Any) -> Iterator[IotDpsClient]:
    """The provisioning management SDK."""
    with IotDpsClient(credential, server.subscription_id, base_url=server.url) as client:
        yield client


@pytest.fixture
def hub(hubs: IotHubClient) -> Iterator[Any]:
    """A hub, deleted afterwards."""
    name = "plant-hub"
    yield hubs.iot_hub_resource.begin_create_or_update(GROUP, name, HUB_BODY).result()
    hubs.iot_hub_resource.begin_delete(GROUP, name).result()


@pytest.fixture
def service(dps: IotDpsClient) -> Iterator[Any]:
    """A provisioning service, deleted afterwards."""
    name = "plant-dps"
    body = {"location": "local", "sku": {"name": "S1", "capacity": 1}, "properties": {}}
    yield dps.iot_dps_resource.begin_create_or_update(GROUP, name, body).result()
    dps.iot_dps_resource.begin_delete(name, GROUP).result()


def claims_of(token: str) -> dict[str, Any]:
    """Read a token's claims without checking them, as EZCA's clients do."""
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


# azure-identity.


def test_client_secret_credential(server: Running, credential: Any) -> None:
    """A secret earns a token with the oid and upn that EZCA's clients read."""
    claims = claims_of(credential.get_token("https://management.core.windows.net/.default").token)
    assert claims["aud"] == "https://management.core.windows.net"
    assert claims["oid"] == server.object_id
    assert claims["upn"] == "Muster administrator"


def test_client_secret_credential_wrong(server: Running) -> None:
    """A wrong secret is refused with a text that the user sees."""
    with (
        ClientSecretCredential(
            server.tenant_id,
            server.client_id,
            "wrong",
            authority=server.url,
            disable_instance_discovery=True,
        ) as wrong,
        pytest.raises(ClientAuthenticationError, match="AADSTS7000215"),
    ):
        wrong.get_token(ARM)


def test_client_secret_credential_other_resource(credential: Any) -> None:
    """A resource that is not served here earns nothing."""
    with pytest.raises(ClientAuthenticationError, match="not served here"):
        credential.get_token("https://graph.microsoft.com/.default")


def test_adfs_tenant_needs_no_flag(server: Running) -> None:
    """The tenant name `adfs` lets clients skip instance discovery by themselves."""
    with ClientSecretCredential(
        "adfs",
        server.client_id,
        server.client_secret,
        authority=server.url,
    ) as credential:
        claims = claims_of(credential.get_token(ARM).token)
    assert claims["tid"] == server.tenant_id


@pytest.mark.parametrize("send_chain", [False, True])
def test_certificate_credential(server: Running, send_chain: bool) -> None:
    """A registered certificate earns tokens, also several resources' with one assertion."""
    with CertificateCredential(
        server.tenant_id,
        server.client_id,
        str(server.client_pem),
        authority=server.url,
        disable_instance_discovery=True,
        send_certificate_chain=send_chain,
    ) as credential:
        assert claims_of(credential.get_token(ARM).token)["appidacr"] == "2"
        hub_token = credential.get_token("https://iothubs.azure.net/.default")
        assert claims_of(hub_token.token)["aud"] == "https://iothubs.azure.net"


def test_certificate_credential_unregistered(server: Running, tmp_path: Path) -> None:
    """Any other certificate is refused."""
    client_certificate(tmp_path / "other.pem")
    with (
        CertificateCredential(
            server.tenant_id,
            server.client_id,
            str(tmp_path / "other.pem"),
            authority=server.url,
            disable_instance_discovery=True,
        ) as credential,
        pytest.raises(ClientAuthenticationError, match="names no certificate"),
    ):
        credential.get_token(ARM)


def test_default_credential_needs_only_the_environment(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`DefaultAzureCredential()` without arguments, through the App Service form."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", server.identity_header)
    with (
        DefaultAzureCredential() as credential,
        IotHubClient(credential, server.subscription_id, base_url=server.url) as client,
    ):
        assert list(client.iot_hub_resource.list_by_subscription()) == []


def test_managed_identity_credential(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The App Service form takes its header secret, and no other."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", server.identity_header)
    with ManagedIdentityCredential() as credential:
        assert claims_of(credential.get_token(ARM).token)["upn"] == "Muster local machine"
    monkeypatch.setenv("IDENTITY_HEADER", "wrong")
    with ManagedIdentityCredential() as credential, pytest.raises(ClientAuthenticationError):
        credential.get_token(ARM)


def test_managed_identity_credential_through_imds(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The IMDS form, where it is turned on."""
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", server.url)
    with ManagedIdentityCredential() as credential:
        token = credential.get_token("https://iothubs.azure.net/.default")
    assert claims_of(token.token)["aud"] == "https://iothubs.azure.net"


def test_node_certificate_credential(server: Running) -> None:
    """@azure/identity signs with PS256 and a "not before" slightly ahead."""
    script = f"""
        const {{ ClientCertificateCredential }} = require("@azure/identity");
        const credential = new ClientCertificateCredential(
            "{server.tenant_id}", "{server.client_id}",
            "{server.client_pem}",
            {{ authorityHost: "{server.url}", disableInstanceDiscovery: true }});
        credential.getToken("{ARM}").then(t => console.log(t.token),
            e => {{ console.error(e); process.exit(1); }});
    """
    done = subprocess.run(
        ["node", "-e", script],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=NODE_MODULES.parent,
        env={"PATH": "/usr/bin:/bin", "NODE_EXTRA_CA_CERTS": str(server.ca_file)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert claims_of(done.stdout.strip())["appidacr"] == "2"


# azure-mgmt-iothub.


def test_a_token_is_needed(server: Running, dps: Any) -> None:
    """Without one, and with a forged one, nothing is told."""

    class Forged:
        def get_token(self, *_scopes: str, **_options: Any) -> Any:
            from azure.core.credentials import AccessToken

            return AccessToken("e30.e30.e30", 2**31)

    with (
        IotHubClient(Forged(), server.subscription_id, base_url=server.url) as client,
        pytest.raises(ClientAuthenticationError) as caught,
    ):
        client.iot_hub_resource.get(GROUP, "anything")
    assert "authorization_uri" in caught.value.response.headers["WWW-Authenticate"]


def test_a_hub_is_made_read_changed_and_deleted(hubs: IotHubClient) -> None:
    """The life of a hub, without a single poll."""
    operations = hubs.iot_hub_resource
    assert operations.check_name_availability({"name": "life-hub"}).name_available
    made = operations.begin_create_or_update(GROUP, "life-hub", HUB_BODY).result()
    assert made.properties.host_name == "localhost"
    assert made.properties.state == "Active"
    assert made.properties.event_hub_endpoints["events"].partition_count == 4
    assert made.properties.authorization_policies is None
    taken = operations.check_name_availability({"name": "LIFE-HUB"})
    assert (taken.name_available, taken.reason) == (False, "AlreadyExists")

    second = operations.begin_create_or_update(GROUP, "life-hub-2", HUB_BODY).result()
    assert second.properties.host_name == "127.0.0.2"
    names = [hub.name for hub in operations.list_by_resource_group(GROUP)]
    assert names == ["life-hub", "life-hub-2"]
    assert len(list(operations.list_by_subscription())) == 2
    assert len(list(operations.get_valid_skus(GROUP, "life-hub"))) == 7
    assert operations.get_stats(GROUP, "life-hub").total_device_count == 0

    keys = {key.key_name: key for key in operations.list_keys(GROUP, "life-hub")}
    assert set(keys) == {"iothubowner", "service", "device", "registryRead", "registryReadWrite"}
    one = operations.get_keys_for_key_name(GROUP, "LIFE-hub", "service")
    assert one.primary_key == keys["service"].primary_key
    assert one.rights == "ServiceConnect"

    # What was read can be put back, and the keys survive it.
    got = operations.get(GROUP, "Life-Hub")
    got.properties.comments = "kept"
    again = operations.begin_create_or_update(GROUP, "life-hub", got, if_match=got.etag).result()
    assert again.properties.comments == "kept"
    after = {key.key_name: key.primary_key for key in operations.list_keys(GROUP, "life-hub")}
    assert after == {name: key.primary_key for name, key in keys.items()}
    with pytest.raises(HttpResponseError) as caught:
        operations.begin_create_or_update(GROUP, "life-hub", got, if_match=got.etag).result()
    assert caught.value.status_code == 412

    tagged = operations.begin_update(GROUP, "life-hub", {"tags": {"line": "7"}}).result()
    assert tagged.tags == {"line": "7"}
    operations.begin_delete(GROUP, "life-hub").result()
    operations.begin_delete(GROUP, "life-hub").result()
    operations.begin_delete(GROUP, "life-hub-2").result()
    with pytest.raises(ResourceNotFoundError):
        operations.get(GROUP, "life-hub")


def test_what_does_not_exist_is_named(server: Running, hubs: Any, credential: Any) -> None:
    """Unknown groups and subscriptions have Azure's own error codes."""
    with pytest.raises(ResourceNotFoundError) as caught:
        hubs.iot_hub_resource.get("nowhere", "hub")
    assert caught.value.error.code == "ResourceGroupNotFound"
    other = "00000000-0000-0000-0000-000000000000"
    with (
        IotHubClient(credential, other, base_url=server.url) as client,
        pytest.raises(ResourceNotFoundError) as caught,
    ):
        list(client.iot_hub_resource.list_by_subscription())
    assert caught.value.error.code == "SubscriptionNotFound"


def test_consumer_groups(hubs: IotHubClient, hub: Any) -> None:
    """$Default is there; another is made, listed and deleted."""
    operations = hubs.iot_hub_resource
    body = {"properties": {"name": "lab"}}
    made = operations.create_event_hub_consumer_group(GROUP, hub.name, "events", "lab", body)
    assert made.name == "lab"
    listed = operations.list_event_hub_consumer_groups(GROUP, hub.name, "events")
    assert [group.name for group in listed] == ["$Default", "lab"]
    operations.delete_event_hub_consumer_group(GROUP, hub.name, "events", "lab")
    listed = operations.list_event_hub_consumer_groups(GROUP, hub.name, "events")
    assert [group.name for group in listed] == ["$Default"]


def test_hub_certificate_verified_on_upload(hubs: IotHubClient, hub: Any) -> None:
    """The tutorial's tick box: set certificate status to verified on upload."""
    authority = Authority("Verified CA")
    properties = {"certificate": authority.text, "isVerified": True}
    made = hubs.certificates.create_or_update(GROUP, hub.name, "ca", {"properties": properties})
    assert made.properties.is_verified
    assert made.properties.subject == "CN=Verified CA"
    assert made.properties.thumbprint == hashlib.sha1(authority.der).hexdigest().upper()
    assert made.properties.expiry == authority.certificate.not_valid_after_utc
    (listed,) = hubs.certificates.list_by_iot_hub(GROUP, hub.name).value
    assert base64.b64decode(listed.properties.certificate) == authority.der
    with pytest.raises(HttpResponseError) as caught:
        hubs.certificates.delete(GROUP, hub.name, "ca", if_match="old")
    assert caught.value.status_code == 412
    hubs.certificates.delete(GROUP, hub.name, "ca", if_match=made.etag)
    with pytest.raises(ResourceNotFoundError):
        hubs.certificates.get(GROUP, hub.name, "ca")


def test_hub_certificate_proof_of_possession(hubs: IotHubClient, hub: Any) -> None:
    """Upload unverified, get a code, have it signed; a wrong code and a wrong CA are refused."""
    authority, other = Authority("Plant CA"), Authority("Plant CA")
    pem = base64.b64encode(authority.certificate.public_bytes(Encoding.PEM)).decode()
    certificates = hubs.certificates
    made = certificates.create_or_update(
        GROUP, hub.name, "plant", {"properties": {"certificate": pem}}
    )
    assert not made.properties.is_verified
    asked = certificates.generate_verification_code(GROUP, hub.name, "plant", made.etag)
    code = asked.properties.verification_code
    for wrong in (authority.prove("wrong"), other.prove(code)):
        body = {"certificate": base64.b64encode(wrong).decode()}
        with pytest.raises(HttpResponseError) as caught:
            certificates.verify(GROUP, hub.name, "plant", asked.etag, body)
        assert caught.value.status_code == 400
        assert "verification" in caught.value.message
    body = {"certificate": base64.b64encode(authority.prove(code)).decode()}
    done = certificates.verify(GROUP, hub.name, "plant", asked.etag, body)
    assert done.properties.is_verified
    # A code works once.
    with pytest.raises(HttpResponseError):
        certificates.verify(GROUP, hub.name, "plant", done.etag, body)


# azure-mgmt-iothubprovisioningservices.


def test_a_provisioning_service_is_made_linked_and_deleted(
    hubs: IotHubClient, dps: IotDpsClient, hub: Any
) -> None:
    """Link a hub by its connection string; what is shown is masked, what is put back is kept."""
    operations = dps.iot_dps_resource
    free = operations.check_provisioning_service_name_availability({"name": "life-dps"})
    assert free.name_available
    body: dict[str, Any] = {"location": "local", "sku": {"name": "S1", "capacity": 1}}
    made = operations.begin_create_or_update(GROUP, "life-dps", {**body, "properties": {}}).result()
    assert made.properties.id_scope.startswith("0ne")
    assert len(made.properties.id_scope) == 11
    assert made.properties.allocation_policy == "Hashed"
    assert made.properties.device_provisioning_host_name == "localhost"
    assert made.properties.service_operations_host_name == "localhost"

    key = hubs.iot_hub_resource.get_keys_for_key_name(GROUP, hub.name, "iothubowner").primary_key
    connection = f"HostName=localhost:8443;SharedAccessKeyName=iothubowner;SharedAccessKey={key}"
    made.properties.iot_hubs = [{"connectionString": connection, "location": "local"}]
    linked = operations.begin_create_or_update(GROUP, "life-dps", made).result()
    (link,) = linked.properties.iot_hubs
    assert link.name == "localhost"
    assert link.connection_string.endswith(";SharedAccessKey=****")

    linked.properties.allocation_policy = "Static"
    again = operations.begin_create_or_update(GROUP, "life-dps", linked).result()
    assert again.properties.allocation_policy == "Static"
    assert len(again.properties.iot_hubs) == 1

    again.properties.iot_hubs = [
        {"connectionString": connection.replace("localhost", "127.0.0.9"), "location": "local"}
    ]
    with pytest.raises(HttpResponseError, match="no hub"):
        operations.begin_create_or_update(GROUP, "life-dps", again).result()

    (owner,) = operations.list_keys("life-dps", GROUP)
    assert owner.key_name == "provisioningserviceowner"
    one = operations.list_keys_for_key_name("life-dps", owner.key_name, GROUP)
    assert one.primary_key == owner.primary_key
    assert [sku.name for sku in operations.list_valid_skus("life-dps", GROUP)] == ["S1"]
    tagged = operations.begin_update(GROUP, "life-dps", {"tags": {"line": "7"}}).result()
    assert tagged.tags == {"line": "7"}
    assert [one.name for one in operations.list_by_resource_group(GROUP)] == ["life-dps"]
    assert [one.name for one in operations.list_by_subscription()] == ["life-dps"]
    operations.begin_delete("life-dps", GROUP).result()
    with pytest.raises(ResourceNotFoundError):
        operations.get("life-dps", GROUP)


def test_dps_certificate_both_ways(dps: IotDpsClient, service: Any) -> None:
    """Verified on upload, and by proof of possession, with quoted entity tags."""
    verified, proved = Authority("Verified CA"), Authority("Proved CA")
    operations = dps.dps_certificate
    made = operations.create_or_update(
        GROUP,
        service.name,
        "verified",
        {"properties": {"certificate": verified.text, "isVerified": True}},
    )
    assert made.properties.is_verified
    unproved = operations.create_or_update(
        GROUP, service.name, "proved", {"properties": {"certificate": proved.text}}
    )
    assert not unproved.properties.is_verified
    condition = {"match_condition": MatchConditions.IfNotModified}
    asked = operations.generate_verification_code(
        "proved", GROUP, service.name, etag=unproved.etag, **condition
    )
    code = asked.properties.verification_code
    wrong = {"certificate": base64.b64encode(proved.prove("wrong")).decode()}
    with pytest.raises(HttpResponseError):
        operations.verify_certificate(
            "proved", GROUP, service.name, wrong, etag=asked.etag, **condition
        )
    good = {"certificate": base64.b64encode(proved.prove(code)).decode()}
    done = operations.verify_certificate(
        "proved", GROUP, service.name, good, etag=asked.etag, **condition
    )
    assert done.properties.is_verified
    listed = operations.list(GROUP, service.name).value
    assert [entry.name for entry in listed] == ["verified", "proved"]
    with pytest.raises(ResourceModifiedError):
        operations.delete(GROUP, service.name, "proved", etag=asked.etag, **condition)
    operations.delete(GROUP, service.name, "proved", etag=done.etag, **condition)
    assert operations.get("verified", GROUP, service.name).name == "verified"


def test_the_discovery_document_is_whole(server: Running) -> None:
    """Every URL in it leads to this server, and its keys are served."""
    import ssl

    context = ssl.create_default_context(cafile=str(server.ca_file))
    url = f"{server.url}/{server.tenant_id}/v2.0/.well-known/openid-configuration"
    with urllib.request.urlopen(url, context=context) as response:
        document = json.load(response)
    assert document["token_endpoint"].startswith(f"{server.url}/{server.tenant_id}/")
    with urllib.request.urlopen(document["jwks_uri"], context=context) as response:
        assert json.load(response)["keys"][0]["kty"] == "RSA"

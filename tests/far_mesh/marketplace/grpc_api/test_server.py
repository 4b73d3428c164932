"""How the port of gRPC is reached: in clear text only where nobody else listens."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from far_mesh.marketplace.errors import AddressInUse, InvalidSetting, MissingSetting
from far_mesh.marketplace.grpc_api.far_pb2 import NodeStatusRequest
from far_mesh.marketplace.grpc_api.far_pb2_grpc import FarMeshStub
from far_mesh.marketplace.grpc_api.server import credentials, open_door
from far_mesh.marketplace.settings import Settings
from tests.docs.pages import ROOT
from tests.far_mesh.marketplace.conftest import OpenHouse


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "far.test")])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_clear_text_is_for_this_machine(host: str) -> None:
    assert credentials(Settings.read(host=host)) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "far.test"])
def test_clear_text_for_others_has_to_be_wanted(host: str) -> None:
    with pytest.raises(MissingSetting, match="FAR_GRPC_TLS_CERT"):
        credentials(Settings.read(host=host))
    assert credentials(Settings.read(host=host, grpc_insecure=True)) is None


def test_half_a_certificate_is_none(certificate: tuple[Path, Path]) -> None:
    with pytest.raises(MissingSetting, match="FAR_GRPC_TLS_KEY"):
        credentials(Settings.read(grpc_tls_cert=certificate[0]))
    with pytest.raises(MissingSetting, match="FAR_GRPC_TLS_CERT"):
        credentials(Settings.read(grpc_tls_key=certificate[1]))


def test_files_that_are_not_there_are_named(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"FAR_GRPC_TLS_KEY.*nothing\.pem"):
        credentials(Settings.read(grpc_tls_cert=certificate[0], grpc_tls_key=tmp_path / "nothing.pem"))


@pytest.mark.parametrize("which", [0, 1], ids=["certificate", "key"])
def test_a_certificate_that_is_none_is_refused(which: int, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("x")
    files = [*certificate]
    files[which] = tmp_path / "x.pem"
    with pytest.raises(InvalidSetting, match="FAR_GRPC_TLS_CERT"):
        credentials(Settings.read(grpc_tls_cert=files[0], grpc_tls_key=files[1]))


def test_with_a_certificate_nobody_talks_in_clear_text(open_house: OpenHouse, certificate: tuple[Path, Path]) -> None:
    port = open_house(grpc_tls_cert=certificate[0], grpc_tls_key=certificate[1]).open_grpc()
    secure = grpc.ssl_channel_credentials(certificate[0].read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{port}", secure) as channel:
        assert FarMeshStub(channel).NodeStatus(NodeStatusRequest()).status == "ready"
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError):
        FarMeshStub(channel).NodeStatus(NodeStatusRequest(), timeout=5)


def test_a_port_that_is_taken_is_one_clear_sentence(open_house: OpenHouse, loop_thread: Any) -> None:
    house = open_house()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        door = open_door(house.settings, house.rooms, taken.getsockname()[1])
        with pytest.raises(AddressInUse, match="FAR_GRPC_PORT"):
            loop_thread.do(door.__aenter__())


def test_generated_code_is_that_of_the_definition(tmp_path: Path) -> None:
    definition = "far_mesh/marketplace/grpc_api/far.proto"
    kinds = ("python", "pyi", "grpc_python")
    compiler = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *(f"--{kind}_out={tmp_path}" for kind in kinds)]
    subprocess.run([*compiler, definition], cwd=ROOT, check=True)
    made = sorted(path for path in tmp_path.rglob("far_pb2*"))
    assert [path.name for path in made] == ["far_pb2.py", "far_pb2.pyi", "far_pb2_grpc.py"]
    for path in made:
        assert path.read_text() == (ROOT / path.relative_to(tmp_path)).read_text(), path.name

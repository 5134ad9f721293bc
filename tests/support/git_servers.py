"""Real git servers: sshd, and `git http-backend` behind a small HTTPS server that asks for a token."""

from __future__ import annotations

import base64
import contextlib
import getpass
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.signing import SshKey, ssh_key

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


# --- HTTPS -------------------------------------------------------------------------------------------------------


@dataclass
class HttpsServer:
    """Where the repositories below a folder are served, who is let in, and what was asked."""

    url: str
    ca_file: Path
    password: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    """(path, the password that came along, "" for none)."""
    public: dict[str, bytes] = field(default_factory=dict)
    """What anybody may read, by its path."""
    redirect_to: str = ""
    read_only: bool = False
    drip: bool = False
    endless: bool = False
    many_refs: bool = False
    """Name refs without an end, in the protocol in which the server names all."""
    huge_pack: bool = False
    """Send a pack that claims two thousand million objects, without an end."""
    fail_with: int = 0
    """A status to answer with."""


@contextmanager
def https_server(root: Path, folder: Path, password: str) -> Iterator[HttpsServer]:
    """Serve the repositories below `root` by git's own CGI; any user with `password` is let in."""
    certificate = _certificate(folder)
    found = HttpsServer("", certificate, password)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            body = self._body()
            given = _password(self.headers.get("Authorization", ""))
            found.requests.append((self.path, given))
            if found.redirect_to:
                self._answer(302, {"Location": found.redirect_to + self.path}, b"")
            elif self.path in found.public:
                self._answer(200, {}, found.public[self.path])
            elif given != found.password:
                self._answer(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
            elif found.read_only and "git-receive-pack" in self.path:
                self._answer(403, {}, b"")
            elif found.fail_with:
                kind = {"Content-Type": "application/x-git-upload-pack-advertisement"}
                self._answer(found.fail_with, kind, b"this is no protocol of git's")
            elif found.huge_pack:
                self._send_huge_pack()
            elif found.drip or found.endless or found.many_refs:
                self._misbehave()
            else:
                self._answer(*_backend(root, self, body))

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _send_huge_pack(self) -> None:
            kind = "application/x-git-upload-pack-{}".format
            if self.command == "GET":
                ref = b"%040x refs/heads/main\0side-band-64k ofs-delta\n" % 1
                said = b"001e# service=git-upload-pack\n0000%04x%s0000" % (len(ref) + 4, ref)
                self._answer(200, {"Content-Type": kind("advertisement")}, said)
                return
            self.send_response(200)
            self.send_header("Content-Type", kind("result"))
            self.end_headers()
            self.wfile.write(b"0008NAK\n")
            pack, one = b"PACK\0\0\0\2\x7f\xff\xff\xff", b"\x31" + zlib.compress(b"x")
            with contextlib.suppress(OSError):
                while True:
                    data = (pack + one * 500)[:65000]
                    self.wfile.write(b"%04x\1%s" % (len(data) + 5, data))
                    pack = b""
            self.close_connection = True

        def _misbehave(self) -> None:
            """A byte a second, or without end."""
            chunk = b"0" if found.drip else b"0" * 65536
            if found.many_refs:
                lines = [b"%040x refs/heads/%08d\n" % (n, n) for n in range(1, 5000)]
                lines[0] = b"%040x refs/heads/main\0side-band-64k ofs-delta\n" % 1
                chunk = b"".join(b"%04x" % (len(line) + 4) + line for line in lines)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
            self.end_headers()
            self.wfile.write(b"001e# service=git-upload-pack\n0000")
            try:
                while True:
                    self.wfile.write(chunk)
                    time.sleep(1.0 if found.drip else 0)
            except OSError:
                self.close_connection = True

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    # The handshake happens in the handler's thread: a client that never says a word stops nobody.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    found.url = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _certificate(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return certificate


def _password(header: str) -> str:
    if not header.startswith("Basic "):
        return ""
    return base64.b64decode(header[6:]).decode().partition(":")[2]


def _backend(root: Path, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
    path, _, query = handler.path.partition("?")
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""),
        "REQUEST_METHOD": handler.command,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""),
        "REMOTE_USER": "somebody",
        "REMOTE_ADDR": "127.0.0.1",
    }
    done = subprocess.run(
        ["git", "http-backend"], input=body, env=environment, capture_output=True, check=True, timeout=60
    )
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
    return int(headers.pop("Status", "200").split()[0]), headers, content


# --- SSH ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SshServer:
    """A running sshd, the key that it lets in, and what a client should know of it."""

    port: int
    user: str
    key: SshKey
    known_hosts: Path

    def url(self, repository: Path) -> str:
        """The URL of a repository on this machine."""
        return f"ssh://{self.user}@127.0.0.1:{self.port}{repository}"


@contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """A real sshd of Debian's on a port of its own, for the user of the tests."""
    folder.mkdir(parents=True, exist_ok=True)
    host, client = ssh_key(folder, "host"), ssh_key(folder, "client")
    (folder / "authorized_keys").write_text(client.public + "\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host.file}\nPidFile {folder}/pid\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPubkeyAuthentication yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    log = folder / "log"
    process = subprocess.Popen([SSHD, "-D", "-f", str(config), "-E", str(log)])
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {host.public}\n")
    try:
        _until_it_listens(port, process, log)
        yield SshServer(port, getpass.getuser(), client, known_hosts)
    finally:
        process.terminate()
        process.wait(10)


def _until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"sshd does not start: {log.read_text()}") from None
            time.sleep(0.05)
        else:
            return

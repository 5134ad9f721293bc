"""Whose signatures count: real keys, real signatures, and every way to fake one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.settings import Rule, SourceSettings, Trust
from engine.sync.declarations import Declared
from engine.sync.trust import Signature
from tests.support.git import Repository
from tests.support.signing import (
    GpgKey,
    SshKey,
    allowed_signers,
    forget,
    gpg_key,
    signed_commit,
    ssh_key,
)
from tests.support.syncing import Syncing, flow

Make = Callable[..., Syncing]
pytestmark = pytest.mark.skipif(
    not shutil.which("gpg") or not shutil.which("ssh-keygen"), reason="gpg or ssh-keygen is not installed"
)
FILES: dict[str, str | bytes | None] = {"workflows/a.yaml": flow("a")}


@dataclass
class Keys:
    """Everybody's keys, and the operator's files."""

    folder: Path
    ada: SshKey
    bob: SshKey
    mallory: SshKey
    expired: SshKey
    filed: SshKey
    gpg: GpgKey
    gpg_unknown: GpgKey
    gpg_expired: GpgKey
    gpg_revoked: GpgKey

    @property
    def trust(self) -> Trust:
        return Trust(
            allowed_signers=self.folder / "allowed_signers",
            gpg_keyring=self.folder / "keyring.gpg",
            groups={"release": ("bob@example.test", self.gpg.fingerprint)},
        )


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    folder = tmp_path_factory.mktemp("keys")
    made = Keys(
        folder,
        ada=ssh_key(folder, "ada"),
        bob=ssh_key(folder, "bob"),
        mallory=ssh_key(folder, "mallory"),
        expired=ssh_key(folder, "expired"),
        filed=ssh_key(folder, "filed"),
        gpg=gpg_key(folder, "Grace <grace@example.test>"),
        gpg_unknown=gpg_key(folder, "Grace <grace@example.test>"),
        gpg_expired=gpg_key(folder, "Old <old@example.test>", expires="1y", faked_time="20200101T000000"),
        gpg_revoked=gpg_key(folder, "Gone <gone@example.test>"),
    )
    allowed_signers(
        folder / "allowed_signers",
        [
            ("ada@example.test", made.ada),
            ("bob@example.test", made.bob),
            ('expired@example.test valid-before="20200101"', made.expired),
            ('filed@example.test namespaces="file"', made.filed),
        ],
    )
    known = (made.gpg, made.gpg_expired, made.gpg_revoked)
    (folder / "keyring.gpg").write_bytes(
        b"".join(key.export() for key in known) + revocation(made.gpg_revoked)
    )
    yield made
    for key in (made.gpg, made.gpg_unknown, made.gpg_expired, made.gpg_revoked):
        forget(key)


def revocation(key: GpgKey) -> bytes:
    """The key with its revocation, as a keyring holds it."""
    text = (key.home / "openpgp-revocs.d" / f"{key.fingerprint}.rev").read_text()
    certificate = text[text.index(":-----BEGIN") + 1 :]
    other = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    home = GpgKey(other, key.fingerprint, key.primary)
    for content in (key.export(), certificate.encode()):
        home.gpg("--import", given=content)
    revoked = home.export()
    forget(home)
    return revoked


@pytest.fixture
def trusting(make_syncing: Make, keys: Keys) -> Make:
    """Makes a `Syncing` whose source trusts the operator's keys."""

    def make(trust: Trust | None = None, **settings: Any) -> Syncing:
        return make_syncing(trust=trust or keys.trust, **({"verify": "tip"} | settings))

    return make


Case = Callable[[Repository, Keys], str]


def unsigned(repository: Repository, keys: Keys) -> str:
    return repository.commit(FILES)


def author_of_a_signer(repository: Repository, keys: Keys) -> str:
    return repository.commit(FILES, author="Ada Author <ada@example.test>")


def unknown_ssh_key(repository: Repository, keys: Keys) -> str:
    return signed_commit(repository, keys.mallory, FILES, author="Ada Author <ada@example.test>")


def ssh_key_past_its_time(repository: Repository, keys: Keys) -> str:
    return signed_commit(repository, keys.expired, FILES)


def ssh_key_for_another_purpose(repository: Repository, keys: Keys) -> str:
    return signed_commit(repository, keys.filed, FILES)


def key_added_in_the_same_push(repository: Repository, keys: Keys) -> str:
    line = f"mallory@example.test {keys.mallory.public}\n"
    repository.git("config", "gpg.ssh.allowedSignersFile", str(repository.path / "allowed_signers"))
    added = {"allowed_signers": line, ".git-allowed-signers": line, **FILES}
    return signed_commit(repository, keys.mallory, added)


def signature_of_another_commit(repository: Repository, keys: Keys) -> str:
    signed_commit(repository, keys.ada, {"workflows/a.yaml": flow("a", "harmless")})
    raw = repository.git("cat-file", "commit", "HEAD")
    repository.commit({"workflows/a.yaml": flow("a", "harmful")})
    old_tree = raw.partition("\n")[0].removeprefix("tree ")
    forged = raw.replace(old_tree, repository.git("rev-parse", "HEAD^{tree}"), 1)
    (repository.path.parent / "forged").write_text(forged + "\n")
    sha = repository.git("hash-object", "-t", "commit", "-w", str(repository.path.parent / "forged"))
    repository.git("update-ref", "refs/heads/main", sha)
    return sha


def two_signatures(repository: Repository, keys: Keys) -> str:
    signed_commit(repository, keys.ada, {"workflows/a.yaml": flow("a", "harmless")})
    good = repository.git("cat-file", "commit", "HEAD")
    signed_commit(repository, keys.mallory, FILES)
    bad = repository.git("cat-file", "commit", "HEAD")
    header = good[good.index("gpgsig ") : good.index("-----END SSH SIGNATURE-----") + 28]
    forged = bad.replace("gpgsig ", header + "gpgsig ", 1)
    (repository.path.parent / "forged").write_text(forged + "\n")
    sha = repository.git("hash-object", "-t", "commit", "-w", str(repository.path.parent / "forged"))
    repository.git("update-ref", "refs/heads/main", sha)
    return sha


def signed_tag_on_an_unsigned_commit(repository: Repository, keys: Keys) -> str:
    sha = repository.commit(FILES)
    repository.git(*keys.ada.options(), "tag", "-s", "-m", "release", "v1")
    return sha


def words_of_a_signature(repository: Repository, keys: Keys) -> str:
    said = 'Good "git" signature for ada@example.test with ED25519 key'
    return repository.commit(FILES, message=f"{said}\n\n-----BEGIN SSH SIGNATURE-----\n{said}\n")


def unknown_gpg_key(repository: Repository, keys: Keys) -> str:
    return signed_commit(repository, keys.gpg_unknown, FILES)


def expired_gpg_key(repository: Repository, keys: Keys) -> str:
    return signed_commit(repository, keys.gpg_expired, FILES)


def revoked_gpg_key(repository: Repository, keys: Keys) -> str:
    return signed_commit(repository, keys.gpg_revoked, FILES)


def trusted_ssh_key(repository: Repository, keys: Keys) -> str:
    return signed_commit(repository, keys.ada, FILES)


def trusted_gpg_key(repository: Repository, keys: Keys) -> str:
    return signed_commit(repository, keys.gpg, FILES)


@pytest.mark.parametrize(
    "case",
    [
        unsigned,
        author_of_a_signer,
        unknown_ssh_key,
        ssh_key_past_its_time,
        ssh_key_for_another_purpose,
        key_added_in_the_same_push,
        signature_of_another_commit,
        two_signatures,
        signed_tag_on_an_unsigned_commit,
        words_of_a_signature,
        unknown_gpg_key,
        expired_gpg_key,
        revoked_gpg_key,
    ],
)
async def test_what_is_not_signed_by_a_trusted_key_is_held(
    case: Case, trusting: Make, git_repo: Repository, keys: Keys
) -> None:
    sha = case(git_repo, keys)
    syncing = trusting()
    standing = await syncing.sync()
    assert (standing.condition, standing.reason) == ("Held", "Untrusted"), standing.message
    assert sha[:12] in standing.message
    assert await syncing.live() == {}
    assert await syncing.problems(sha) == [("", 0, "UNTRUSTED")]
    (revision,) = await syncing.registry.revision(sha)
    assert (revision["signer"], revision["signer_key"]) == ("", "")


@pytest.mark.parametrize(
    ("case", "signer", "key"),
    [
        (trusted_ssh_key, "ada@example.test", lambda keys: keys.ada.fingerprint),
        (trusted_gpg_key, "Grace <grace@example.test>", lambda keys: keys.gpg.fingerprint),
    ],
)
async def test_a_trusted_signature_is_taken_and_its_signer_kept(
    case: Case, signer: str, key: Callable[[Keys], str], trusting: Make, git_repo: Repository, keys: Keys
) -> None:
    sha = case(git_repo, keys)
    syncing = trusting()
    assert (await syncing.sync()).condition == "Synced"
    (revision,) = await syncing.registry.revision(sha)
    assert (revision["signer"], revision["signer_key"]) == (signer, key(keys))
    assert (await details(syncing, "revision.registered"))["signer"] == signer


async def details(syncing: Syncing, action: str) -> dict[str, Any]:
    from sqlalchemy import text

    async with syncing.database.read() as connection:
        found = await connection.execute(
            text("SELECT details FROM audit WHERE action = :action ORDER BY id DESC LIMIT 1"),
            {"action": action},
        )
        return dict(found.scalar_one())


async def test_a_signature_of_a_kind_that_the_operator_has_no_keys_for_is_held(
    trusting: Make, git_repo: Repository, keys: Keys
) -> None:
    signed_commit(git_repo, keys.ada, FILES)
    only_gpg = Trust(gpg_keyring=keys.trust.gpg_keyring)
    assert (await trusting(only_gpg, name="one").sync()).reason == "Untrusted"
    signed_commit(git_repo, keys.gpg, FILES)
    only_ssh = Trust(allowed_signers=keys.trust.allowed_signers)
    assert (await trusting(only_ssh, name="two").sync()).reason == "Untrusted"


async def test_a_commit_on_top_that_is_signed_brings_what_was_held(
    trusting: Make, git_repo: Repository, keys: Keys
) -> None:
    first = signed_commit(git_repo, keys.ada, FILES)
    syncing = trusting()
    await syncing.sync()
    held = git_repo.commit({"workflows/b.yaml": flow("b")})
    assert (await syncing.sync()).condition == "Held"
    assert sorted(await syncing.live()) == ["a"]
    third = signed_commit(git_repo, keys.ada, {})
    assert (await syncing.sync()).condition == "Synced"
    assert await syncing.revisions() == [(first, "REGISTERED"), (held, "REJECTED"), (third, "REGISTERED")]
    assert sorted(await syncing.live()) == ["a", "b"]


async def test_every_commit_means_those_that_a_merge_brings_too(
    trusting: Make, git_repo: Repository, keys: Keys
) -> None:
    signed_commit(git_repo, keys.ada, FILES)
    tip = trusting(name="tip")
    every = trusting(name="every", verify="every_commit")
    await tip.sync()
    await every.sync()
    git_repo.git("checkout", "--quiet", "-b", "side")
    hidden = git_repo.commit({"workflows/b.yaml": flow("b")})
    git_repo.git("checkout", "--quiet", "main")
    git_repo.tick()
    git_repo.git(*keys.ada.options(), "merge", "--quiet", "--no-ff", "-S", "-m", "Merge", "side")
    assert (await tip.sync()).condition == "Synced"
    standing = await every.sync()
    assert standing.reason == "Untrusted"
    assert f"{hidden[:12]}, which {git_repo.head()[:12]} brings" in standing.message
    # A signed commit on top does not help: what it brings is the same.
    signed_commit(git_repo, keys.ada, {})
    assert (await every.sync()).reason == "Untrusted"


async def test_a_key_that_the_operator_adds_releases_what_was_held(
    trusting: Make, git_repo: Repository, keys: Keys, tmp_path: Path
) -> None:
    file = allowed_signers(tmp_path / "signers", [("ada@example.test", keys.ada)])
    sha = signed_commit(git_repo, keys.mallory, FILES)
    syncing = trusting(Trust(allowed_signers=file))
    assert (await syncing.sync()).condition == "Held"
    assert (await syncing.sync()).condition == "Held"
    assert len(await syncing.revisions()) == 1
    allowed_signers(file, [("ada@example.test", keys.ada), ("new@example.test", keys.mallory)])
    assert (await syncing.sync()).condition == "Synced"
    assert await syncing.revisions() == [(sha, "REJECTED"), (sha, "REGISTERED")]


@pytest.mark.parametrize("broken", ["absent", "garbage"])
async def test_keys_that_cannot_be_read_trust_nobody(
    trusting: Make, git_repo: Repository, keys: Keys, tmp_path: Path, broken: str
) -> None:
    file = tmp_path / "keys"
    if broken == "garbage":
        file.write_bytes(b"\x00\x01nonsense")
    signed_commit(git_repo, keys.gpg, FILES)
    syncing = trusting(Trust(gpg_keyring=file))
    standing = await syncing.sync()
    assert (standing.condition, standing.reason) == ("Held", "TrustBroken")
    file.write_bytes(keys.gpg.export())
    assert (await syncing.sync()).condition == "Synced", "it heals by itself"


# --- where every_commit begins --------------------------------------------------------------------------------------


async def test_old_history_without_signatures_is_taken_up_to_the_commit_that_the_operator_names(
    trusting: Make, git_repo: Repository, keys: Keys
) -> None:
    git_repo.commit({"workflows/a.yaml": flow("a", "very old")})
    old = git_repo.commit(FILES)
    syncing = trusting(verify="every_commit", verify_from=old)
    assert (await syncing.sync()).condition == "Synced"
    unsigned = git_repo.commit({"workflows/b.yaml": flow("b")})
    standing = await syncing.sync()
    assert standing.reason == "Untrusted"
    signed_commit(git_repo, keys.ada, {})
    standing = await syncing.sync()
    assert f"{unsigned[:12]}, which {git_repo.head()[:12]} brings" in standing.message
    git_repo.git("reset", "--quiet", "--hard", old)
    assert (await syncing.sync()).condition == "Synced"
    signed_commit(git_repo, keys.ada, {"workflows/b.yaml": flow("b")})
    assert (await syncing.sync()).condition == "Synced"
    assert sorted(await syncing.live()) == ["a", "b"]


async def test_no_push_moves_where_every_commit_begins(
    trusting: Make, git_repo: Repository, keys: Keys
) -> None:
    old = git_repo.commit(FILES)
    hidden = git_repo.commit({"workflows/a.yaml": flow("a", "evil")})
    signed_commit(git_repo, keys.ada, {})
    strict = trusting(name="strict", verify="every_commit", verify_from=old)
    standing = await strict.sync()
    assert standing.reason == "Untrusted"
    assert hidden[:12] in standing.message
    # Without a beginning, whoever signs the first revision vouches for what is below it.
    assert (await trusting(name="first", verify="every_commit").sync()).condition == "Synced"
    # A history of its own brings all of itself, whatever its tip is signed with.
    git_repo.git("checkout", "--quiet", "--orphan", "other")
    git_repo.commit({"workflows/a.yaml": flow("a", "evil")})
    signed_commit(git_repo, keys.ada, {})
    git_repo.git("branch", "--quiet", "-M", "main")
    assert (await strict.sync()).reason == "Untrusted"


async def test_a_beginning_that_is_not_in_the_repository_is_told(
    trusting: Make, git_repo: Repository, keys: Keys
) -> None:
    git_repo.commit(FILES)
    signed_commit(git_repo, keys.ada, {})
    syncing = trusting(verify="every_commit", verify_from="1" * 40)
    standing = await syncing.sync()
    assert standing.reason == "Untrusted"
    assert "no commit 111111111111, which `verify_from` names" in standing.message
    git_repo.git("checkout", "--quiet", "--orphan", "other")
    signed_commit(git_repo, keys.ada, {})
    git_repo.git("branch", "--quiet", "-M", "main")
    assert (await syncing.sync()).condition == "Synced", "where all is signed, it does not matter"


async def test_a_branch_put_back_before_what_is_live_must_itself_be_signed(
    trusting: Make, git_repo: Repository, keys: Keys
) -> None:
    old = git_repo.commit(FILES)
    signed_commit(git_repo, keys.ada, {})
    syncing = trusting(verify="every_commit")
    assert (await syncing.sync()).condition == "Synced"
    git_repo.git("reset", "--quiet", "--hard", old)
    standing = await syncing.sync()
    assert (standing.condition, standing.reason) == ("Held", "Untrusted")


# --- what an operator asks for later --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["registered", "registered with a bad file", "rejected"])
async def test_what_is_asked_for_later_takes_nothing_back(
    trusting: Make, git_repo: Repository, keys: Keys, kind: str
) -> None:
    bad: dict[str, str | bytes | None] = {"workflows/b.yaml": "name: b\ntasks: []\n"}
    git_repo.commit(FILES if kind == "registered" else FILES | bad)
    mode = "isolated" if kind == "registered with a bad file" else "atomic"
    first = trusting(verify="none", mode=mode)
    stood = await first.sync()
    revisions = await first.revisions()
    for settings in (
        {"verify": "tip"},
        {"verify": "none", "rules": ({"paths": ["**"], "group": "release"},)},
    ):
        again = trusting(mode=mode, **settings)
        standing = await again.sync()
        assert (standing.condition, standing.reason) == (stood.condition, stood.reason), standing.message
        assert await again.revisions() == revisions
    if kind == "registered":
        git_repo.commit(bad)
        strict = trusting()
        assert (await strict.sync()).condition == "Held"
        git_repo.git("reset", "--quiet", "--hard", "HEAD~1")
        assert (await strict.sync()).condition == "Synced", "pushed back to what is live"


async def test_a_daemon_that_knows_older_rules_does_not_go_around_newer_ones(
    trusting: Make, git_repo: Repository, keys: Keys
) -> None:
    sha = signed_commit(git_repo, keys.ada, FILES)
    old, new = trusting(verify="none"), trusting(verify="tip")
    assert (await old.sync()).condition == "Synced"
    assert (await new.sync()).condition == "Synced"
    git_repo.commit({"workflows/a.yaml": flow("a", "unsigned")})
    assert (await old.sync()).reason == "DeclaredTwice"
    assert (await old.row())["contested"]
    assert (await new.sync()).reason == "Untrusted"
    assert await new.live() == {"a": (sha, "workflows/a.yaml")}
    told = trusting(verify="tip")  # the other daemon has read the new rules, and says nothing else any more
    assert (await told.sync()).reason == "Untrusted"
    assert not (await told.row())["contested"]


RULES = ({"paths": ["prod/**", "functions/**"], "group": "release"},)


async def test_a_rule_holds_what_it_reserves_for_a_group(
    trusting: Make, git_repo: Repository, keys: Keys
) -> None:
    signed_commit(git_repo, keys.bob, {**FILES, "workflows/prod/p.yaml": flow("p")})
    syncing = trusting(rules=RULES, verify="none")
    assert (await syncing.sync()).condition == "Synced"
    git_repo.commit({"workflows/a.yaml": flow("a", "2")})
    assert (await syncing.sync()).condition == "Synced", "no rule speaks of it"
    signed_commit(git_repo, keys.ada, {"workflows/prod/p.yaml": flow("p", "2")})
    standing = await syncing.sync()
    assert (standing.condition, standing.reason) == ("Held", "SignerNeeded")
    assert "group release; it was signed by ada@example.test" in standing.message
    assert await syncing.problems(git_repo.head()) == [("workflows/prod/p.yaml", 0, "SIGNER_NEEDED")]
    # Whatever comes on top still brings it.
    git_repo.commit({"workflows/a.yaml": flow("a", "3")})
    assert (await syncing.sync()).condition == "Held"
    signed_commit(git_repo, keys.gpg, {})
    assert (await syncing.sync()).condition == "Synced"


@pytest.mark.parametrize("way", ["remove", "move", "functions", "link"])
async def test_a_rule_cannot_be_gone_around(
    trusting: Make, git_repo: Repository, keys: Keys, way: str
) -> None:
    files = {
        "workflows/prod/p.yaml": flow("p", function="lib:run"),
        "workflows/functions/lib.py": "def run(): return 1\n",
        "workflows/a.yaml": flow("a"),
    }
    signed_commit(git_repo, keys.bob, {**files})
    syncing = trusting(rules=({"paths": ["prod/**"], "group": "release"},), mode="isolated")
    assert (await syncing.sync()).condition == "Synced"
    changes: dict[str, dict[str, str | bytes | None]] = {
        "remove": {"workflows/prod/p.yaml": None},
        "move": {"workflows/prod/p.yaml": None, "workflows/p.yaml": flow("p", "evil")},
        "functions": {"workflows/functions/lib.py": "def run(): return 666\n"},
        "link": {"workflows/prod/p.yaml": None},
    }
    if way == "link":
        git_repo.write({"workflows/prod/p.yaml": None})
        (git_repo.path / "workflows/prod").mkdir(exist_ok=True)
        (git_repo.path / "workflows/prod/p.yaml").symlink_to("../a.yaml")
        signed_commit(git_repo, keys.ada, {})
    else:
        signed_commit(git_repo, keys.ada, changes[way])
    assert (await syncing.sync()).reason == "SignerNeeded"


def test_the_names_in_a_gpg_key_prove_nothing() -> None:
    key = Signature("bob@example.test", "A" * 40, "B" * 40)
    assert not key.is_of(["bob@example.test"])
    assert key.is_of(["bbbb " * 10])
    ssh = Signature("bob@example.test", "SHA256:abc")
    assert ssh.is_of(["bob@example.test"])
    assert ssh.is_of(["SHA256:abc"])
    assert not ssh.is_of(["sha256:ABC", ""])


def test_settings_of_trust_are_frozen_parts_of_a_declaration(keys: Keys) -> None:
    rules = (Rule(paths=("prod/**",), group="release"),)
    declared = Declared(SourceSettings(name="x", url="/x", verify="tip", rules=rules), None, keys.trust)
    assert declared == Declared(
        SourceSettings(name="x", url="/x", verify="tip", rules=rules), None, keys.trust
    )

"""What a file of sources may say, and where a fault in it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import Misconfigured
from engine.settings import Settings, SourceSettings
from engine.sync.declarations import Declarations, read_declarations, read_list

FILE = """\
credentials:
  forge: {hosts: [git.example.test], token_env: FORGE_TOKEN}
  deploy: {hosts: ["git.example.test:2222"], ssh_key: keys/id, known_hosts: keys/known_hosts}
trust:
  team:
    allowed_signers: keys/signers
    groups: {release: [ada@example.test]}
sources:
  - {name: staging, url: "https://git.example.test/flows.git", branch: staging, credential: forge}
  - name: production
    url: https://git.example.test/flows.git
    branch: production
    credential: forge
    verify: tip
    trust: team
    mode: isolated
    rules: [{paths: ["prod/**"], group: release}]
  - {name: local, url: ../flows}
include:
  - {name: teams, url: "ssh://git@git.example.test:2222/teams.git", file: sources.yaml, credential: deploy}
"""


def declared(folder: Path, text: str = FILE, **settings: object) -> Declarations:
    file = folder / "sources.yaml"
    file.write_text(text)
    return read_declarations(Settings.model_validate({"sources_file": file, **settings}))


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    found = declared(tmp_path)
    assert [each.name for each in found.sources] == ["staging", "production", "local"]
    staging, production, local = found.sources
    assert staging.credential is not None
    assert staging.credential.token_env == "FORGE_TOKEN"
    assert production.trust is not None
    assert production.trust.allowed_signers == tmp_path / "keys/signers", "relative to the file"
    assert local.source.url == str(tmp_path / "../flows")
    (teams,) = found.includes
    assert teams.credential is not None
    assert teams.credential.ssh_key == tmp_path / "keys/id"
    assert teams.place == "sources.yaml"


def test_sources_of_the_environment_may_use_credentials_of_the_file(tmp_path: Path) -> None:
    more = (SourceSettings(name="env", url="https://git.example.test/x.git", credential="forge"),)
    found = declared(tmp_path, sources=more)
    assert found.sources[0].name == "env"
    assert found.sources[0].credential == found.credentials["forge"]


@pytest.mark.parametrize(
    ("change", "place", "said"),
    [
        (("branch: staging", "brunch: staging"), ":9:", "there is no such key"),
        (("credential: forge}", "credential: froge}"), ":9:", "there is no credential 'froge'; there are: deploy, forge"),
        (("name: production", "name: staging"), ":10:", "several sources are named staging"),
        (("name: production", "name: Production"), ":10:", "pattern"),
        (("    trust: team\n", ""), ":14:", "a `trust` must say whose keys count"),
        (("trust: team", "trust: tem"), ":15:", "there is no trust 'tem'"),
        (("group: release}", "group: relase}"), ":17:", "there is no group 'relase'"),
        (("mode: isolated", "mode: isolating"), ":16:", "'atomic' or 'isolated'"),
        (("token_env: FORGE_TOKEN", "token: secret-itself"), ":2:", "there is no such key"),
        ((", known_hosts: keys/known_hosts", ""), ":3:", "ssh_key and known_hosts go together"),
        (("hosts: [git.example.test]", "hosts: [other.example.test]"), ":9:", "not for the host git.example.test"),
        (("hosts: [git.example.test]", "hosts: []"), ":2:", "at least 1 item"),
        (("sources:\n", "sources:\n  - just text\n"), ":9:", "dictionary"),
        (("sources:\n", "sources: [\n"), "sources.yaml:", ""),
        (("url: ../flows", "url: [1]"), ":18:", "string"),
        (("name: teams", "name: local"), ":20:", "several sources are named local"),
    ],
)  # fmt: skip
def test_every_fault_has_its_place(tmp_path: Path, change: tuple[str, str], place: str, said: str) -> None:
    assert change[0] in FILE
    with pytest.raises(Misconfigured) as caught:
        declared(tmp_path, FILE.replace(*change, 1))
    assert str(tmp_path / "sources.yaml") in caught.value.message
    assert place in caught.value.message
    assert said in caught.value.message
    assert "secret-itself" not in str(caught.value)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = FILE.replace("mode: isolated", "mode: x").replace("branch: staging", "brunch: staging")
    with pytest.raises(Misconfigured) as caught:
        declared(tmp_path, text)
    assert len(caught.value.message.splitlines()) == 2


def test_a_file_may_declare_nothing_if_it_says_so(tmp_path: Path) -> None:
    assert declared(tmp_path, "sources: []\n").sources == ()
    for emptied in ("", "# nothing yet\n"):
        with pytest.raises(Misconfigured, match="the file is empty"):
            declared(tmp_path, emptied)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"nowhere\.yaml cannot be read"):
        read_declarations(Settings(sources_file=tmp_path / "nowhere.yaml"))


# --- lists in git --------------------------------------------------------------------------------------------


LIST = """\
sources:
  - {name: payments, url: "https://git.example.test/payments.git", credential: forge}
"""


def listed(tmp_path: Path, text: str) -> tuple[list[str], list[str]]:
    found, problems = read_list(text.encode(), "sources.yaml", declared(tmp_path), "teams")
    return [each.name for each in found], [str(problem) for problem in problems]


def test_a_list_in_git_names_the_operators_credentials(tmp_path: Path) -> None:
    found, problems = read_list(LIST.encode(), "sources.yaml", declared(tmp_path), "teams")
    assert not problems
    assert found[0].credential is not None
    assert found[0].included_from == "teams"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LIST + "credentials:\n  mine: {hosts: [evil.example.test], token_env: DATABASE_URL}\n", "no such key"),
        (LIST + "trust:\n  mine: {allowed_signers: ./signers}\n", "no such key"),
        (LIST + "include: []\n", "no such key"),
        (LIST.replace("git.example.test", "evil.example.test"), "not for the host evil.example.test"),
        (LIST.replace("https://git.example.test/payments.git", "/etc"), "not paths of this machine"),
        (LIST.replace("https://git.example.test/payments.git", "file:///etc"), "not paths of this machine"),
        (LIST.replace("https://git", "https://user:s3cret@git"), "holds no credential"),
        (LIST.replace("https://git", "ext::https://git"), "scheme 'ext' is not allowed"),
        (LIST.replace("payments,", "staging,"), "several sources are named staging"),
        (LIST + "  - {name: payments, url: 'https://git.example.test/x.git'}\n", "several sources are named payments"),
        (LIST.replace("payments,", "-x,"), "pattern"),
        ("sources: 5\n", "tuple"),
        ("{}", "sources: Field required"),
        ("sources: &x [*x]", ""),
        ("[" * 100_000, ""),
    ],
)  # fmt: skip
def test_a_list_in_git_brings_nothing_of_its_own(tmp_path: Path, text: str, said: str) -> None:
    found, problems = listed(tmp_path, text)
    assert not found
    assert problems
    assert said in "\n".join(problems)
    assert problems[0].startswith("sources.yaml:")
    assert "s3cret" not in "\n".join(problems)

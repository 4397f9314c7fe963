"""The known holes of PyGrid, and of PriMIA where they concern who is let in: each is closed here."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import grpc
import jwt
import numpy as np
import pytest

from libs.cli.client.accounts import accept_invitation, log_in
from libs.cli.client.session import CALL_TIMEOUT_S, Session, open_session
from libs.cli.client.studies import create_and_start, fetch_weights, get_study
from libs.cli.demo.material import DATASET_NAME, TAGS
from libs.cli.demo.staff import WITHOUT_PRIVACY, owners_profile, publish_everywhere, until
from libs.cli.local_cluster import LocalCluster
from libs.core.errors import InvalidInput, PermissionDenied, TooLarge, TrefoilError
from libs.core.ids import new_id
from libs.core.secret import Secret
from libs.data.export import export_part
from libs.data.phantom import make_phantoms
from libs.fl.training_plan import TrainingPlan
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.hospital.v1 import access_pb2, accounts_pb2, hospital_pb2
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.channel import translated
from libs.rpc.dev_ca import create_keys, issuing_secret
from libs.rpc.tokens import Role, TokenIssuer
from tests.e2e.known_holes.conftest import (
    BETA,
    CLINIC,
    HOSPITALS,
    LET_IN,
    SCIENTIST,
    STAFF_ALPHA,
    Federation,
)

pytestmark = pytest.mark.timeout(240)

WHO, NO = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
GATEWAY = "/trefoil.coordinator.v1.CoordinatorService/"
SEARCH = GATEWAY + "SearchDatasets"
GET_SHARES = "/trefoil.party.v1.PartyService/GetShares"
SIZE = 16
DEADLINE_S = 10.0
ADAMS_PASSWORD = "violet harbour lantern"


# ---------------------------------------------------------------- tokens


async def test_the_gateway_answers_nobody_without_a_token_and_nobody_without_a_certificate(
    federation: Federation,
) -> None:
    """PyGrid: the gateway has no authentication."""
    token = federation.token_of("client-scientist")
    assert await federation.answer("coordinator", SEARCH, SCIENTIST, token) is LET_IN
    for method in ("DescribeFederation", "SearchDatasets", "ListModels", "ListStudies", "ListAssociations"):
        assert await federation.answer("coordinator", GATEWAY + method, SCIENTIST, None) is WHO
    ca = federation.files(SCIENTIST).ca.read_bytes()
    async with grpc.aio.secure_channel(
        federation.cluster.addresses["coordinator"],
        grpc.ssl_channel_credentials(ca),
        options=[("grpc.ssl_target_name_override", "coordinator.trefoil.local")],
    ) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(SEARCH)(b"", timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_tokens_of_another_algorithm_or_without_exp_aud_iss_sub_or_jti_are_refused(
    federation: Federation,
) -> None:
    """PyGrid: `jwt.decode` without pinned algorithms; no `exp`, `aud`, `iss`."""
    maker = federation.maker
    secret = maker.secrets["coordinator"].secret.expose()
    claims = maker.claims("coordinator", Role.SCIENTIST)
    tokens = {
        without: jwt.encode({name: value for name, value in claims.items() if name != without}, secret)
        for without in claims
    }
    tokens |= {algorithm: jwt.encode(claims, secret, algorithm) for algorithm in ("HS384", "HS512")}
    tokens["none"] = jwt.encode(claims, None, "none")
    assert {"exp", "aud", "iss", "sub", "jti", "iat", "role"} <= set(tokens)
    for what, token in tokens.items():
        assert await federation.answer("coordinator", SEARCH, SCIENTIST, token) is WHO, what
    good = maker.good("coordinator", Role.SCIENTIST)
    assert await federation.answer("coordinator", SEARCH, SCIENTIST, good) is LET_IN


async def test_no_token_lives_for_ever(federation: Federation) -> None:
    """PyGrid: tokens of users never expire."""
    maker, now = federation.maker, int(datetime.now(UTC).timestamp())
    for_ever = maker.good("coordinator", Role.SCIENTIST, exp=now + 100 * 24 * 3600)
    assert await federation.answer("coordinator", SEARCH, SCIENTIST, for_ever) is WHO
    over = maker.good("coordinator", Role.SCIENTIST, iat=now - 600, exp=now - 60)
    assert await federation.answer("coordinator", SEARCH, SCIENTIST, over) is WHO
    with pytest.raises(InvalidInput, match="at most 90 days"):
        TokenIssuer(maker.secrets["coordinator"]).issue(
            subject="dana", role=Role.SCIENTIST, lifetime=timedelta(days=91)
        )
    tokens = await log_in(
        owners_profile(federation.cluster, "beta"),
        name="owner",
        password=password_of(federation.cluster, "beta"),
    )
    said = jwt.decode(tokens.access_token, options={"verify_signature": False})
    assert 0 < said["exp"] - now <= 11 * 60
    assert tokens.refresh_expires_at.seconds - now <= 90 * 24 * 3600


# ---------------------------------------------------------------- keys


async def test_no_two_installations_share_a_key(federation: Federation, tmp_path: Path) -> None:
    """PyGrid: a constant signing key is the default."""
    for name in ("one", "two"):
        create_keys(tmp_path / name, hospitals=HOSPITALS, clients=["scientist"])
    secrets = [secrets_below(tmp_path / "one"), secrets_below(tmp_path / "two")]
    secrets.append(secrets_below(federation.cluster.root))
    assert all(len(found) >= 10 for found in secrets)
    for first, second in combinations(secrets, 2):
        assert not first & second
    stranger = TokenIssuer(issuing_secret(tmp_path / "one", "federation")).issue(
        subject="dana", role=Role.SCIENTIST, lifetime=timedelta(hours=1)
    )
    assert await federation.answer("coordinator", SEARCH, SCIENTIST, stranger) is WHO


def secrets_below(folder: Path) -> set[bytes]:
    """What is in every file with a secret."""
    names = ("jwt.secret", "*.key", "*.token")
    return {file.read_bytes() for name in names for file in folder.rglob(name)}


def test_a_service_without_its_secret_does_not_start(federation: Federation, tmp_path: Path) -> None:
    """PyGrid: a service that nobody gave a key starts with one that everybody knows."""
    started = []
    for service in federation.cluster.services:
        if service.name in {"coordinator", "party-0", "hospital-alpha"}:
            settings = (federation.cluster.folder(service.name) / "settings.toml").read_text("utf-8")
            config = tmp_path / f"{service.name}.toml"
            # Everything it needs but the secret, which is not where the settings say.
            config.write_text(
                settings.replace("jwt.secret", "no-such.secret").replace(
                    '"keys/', f'"{federation.cluster.folder(service.name)}/keys/'
                )
            )
            command = [sys.executable, "-m", service.module, "--config", str(config)]
            started.append(
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[3]
                )
            )
    for process in started:
        told, _ = process.communicate(timeout=90)
        assert process.returncode not in (0, None)
        assert b"no-such.secret" in told


def test_settings_and_profiles_hold_paths_and_no_secret(federation: Federation) -> None:
    """PyGrid: secrets in ConfigMaps."""
    root = federation.cluster.root
    secrets = {secret.strip().decode() for secret in secrets_below(root)}
    files = [
        file for pattern in ("settings.toml", "profile.toml", "owner.toml") for file in root.rglob(pattern)
    ]
    assert len(files) >= 15
    for file in files:
        text = file.read_text("utf-8")
        assert not any(secret in text for secret in secrets), file
        for key, value in leaves(tomllib.loads(text)):
            if key in {"secret", "key", "token", "worker_token", "storage_key", "certificate", "ca"}:
                assert (file.parent / value).is_file(), f"{file}: {key}"


def leaves(table: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of everything in a TOML document."""
    if isinstance(table, dict):
        for name, value in table.items():
            yield from leaves(value, name)
    elif isinstance(table, list):
        for value in table:
            yield from leaves(value, key)
    else:
        yield key, table


# ---------------------------------------------------------------- workers and accounts


async def test_a_workers_token_is_worth_nothing_with_another_hospitals_certificate(
    federation: Federation,
) -> None:
    """PyGrid 628: a worker id is not bound to anything, so any worker can be any other."""
    token = federation.token_of("hospital-alpha", "worker.token")
    party = "/trefoil.party.v1.PartyService/"
    for method in ("PutShares", "GetShares", "SetModelUse", "DescribeModelUse"):
        assert await federation.answer("party-0", party + method, BETA, token) is WHO
    assert await federation.answer("coordinator", GATEWAY + "Attach", BETA, token) is WHO


async def test_an_administrator_neither_resets_nor_changes_the_owner(federation: Federation) -> None:
    """PyGrid: an administrator can reset the owner's password."""
    cluster = federation.cluster
    owners = owners_profile(cluster, "alpha")
    mine = owners.with_name("administrator.toml")
    mine.write_text(owners.read_text("utf-8").replace("owner-session.json", "administrator-session.json"))
    invitation = accounts_pb2.InviteUserRequest(
        request_id=new_id("request"), name="adam", full_name="Adam", roles=["administrator"]
    )
    async with open_session(owners) as owner:
        invited = await owner.accounts.InviteUser(invitation, timeout=CALL_TIMEOUT_S)
    await accept_invitation(mine, code=Secret(invited.invitation.code), password=Secret(ADAMS_PASSWORD))
    disabled = accounts_pb2.ChangeUserRequest.ACTIVITY_DISABLED
    async with open_session(mine) as session:
        accounts = session.accounts
        calls = [
            accounts.ResetUser(accounts_pb2.ResetUserRequest(request_id=new_id("r"), name="owner")),
            accounts.ChangeUser(
                accounts_pb2.ChangeUserRequest(request_id=new_id("r"), name="owner", activity=disabled)
            ),
            accounts.ChangeUser(
                accounts_pb2.ChangeUserRequest(
                    request_id=new_id("r"), name="owner", set_roles=True, roles=["clinician"]
                )
            ),
            accounts.TransferOwnership(
                accounts_pb2.TransferOwnershipRequest(
                    request_id=new_id("r"), to="adam", password=ADAMS_PASSWORD
                )
            ),
        ]
        for call in calls:
            with pytest.raises(PermissionDenied):
                await refused(call)
        users = (await session.accounts.ListUsers(accounts_pb2.ListUsersRequest())).users
    assert {tuple(user.roles) for user in users if user.name == "owner"} == {("owner",)}
    await log_in(owners, name="owner", password=password_of(cluster, "alpha"))


async def refused(call: Any) -> None:
    """Await it within the session's own translation of errors."""
    with translated():
        await call


async def test_user_records_hold_neither_keys_nor_passwords(federation: Federation) -> None:
    """PyGrid: user records return private signing keys. What answers can hold is in `test_wire.py`."""
    folder = federation.cluster.folder("hospital-alpha")
    async with open_session(owners_profile(federation.cluster, "alpha")) as owner:
        answers = [
            await owner.accounts.ListUsers(accounts_pb2.ListUsersRequest()),
            await owner.accounts.WhoAmI(accounts_pb2.WhoAmIRequest()),
            await owner.accounts.ListSessions(accounts_pb2.ListSessionsRequest()),
        ]
    told = b"".join(answer.SerializeToString() for answer in answers)
    assert b"owner" in told
    secret = password_of(federation.cluster, "alpha").expose().encode()
    known = {secret, *(word.strip() for word in secrets_below(folder))}
    assert not any(word in told for word in known)
    assert b"argon2" not in told
    assert b"BEGIN" not in told


def password_of(cluster: LocalCluster, hospital: str) -> Secret[str]:
    """Of the hospital's owner."""
    return Secret(owners_profile(cluster, hospital).with_name("owner.password").read_text("utf-8").strip())


# ---------------------------------------------------------------- studies and models


def plan() -> TrainingPlan:
    """One round with all three hospitals in it, two of which suffice; nobody may fetch the weights."""
    return TrainingPlan.model_validate(
        {
            "model": "small_cnn",
            "image_size": SIZE,
            "rounds": 1,
            "local_epochs": 1,
            "batch_size": 16,
            "learning_rate": 0.05,
            "quorum": 2,
            "round_deadline_s": DEADLINE_S,
            "dataset_tags": TAGS,
            "model_access": {"download": "nobody"},
        }
    )


@pytest.fixture(scope="module")
def published(running: Federation) -> Federation:
    """Every hospital has published a few images."""
    for seed, hospital in enumerate(HOSPITALS):
        folder = running.cluster.folder(f"hospital-{hospital}") / "data" / DATASET_NAME
        export_part(make_phantoms(32, size=SIZE, seed=seed), folder)
    asyncio.run(publish_everywhere(running.cluster))
    return running


@pytest.fixture
async def scientist(published: Federation) -> AsyncIterator[Session]:
    async with open_session(published.cluster.profile("scientist")) as session:
        yield session


async def test_who_wrote_a_rule_is_who_called_whatever_the_message_says(published: Federation) -> None:
    """PyGrid: a message field `current_user` is believed. The other messages are in `test_wire.py`."""
    rule = access_pb2.Rule(
        purposes=[access_pb2.PURPOSE_TRAINING],
        dataset_names=[DATASET_NAME],
        at_most=types_pb2.PrivacyCost(epsilon="0.5", delta="0.00001"),
        uses=1,
        created_by="spiffe://trefoil.local/client/somebody-else",
    )
    async with open_session(owners_profile(published.cluster, "alpha")) as owner:
        added = (
            await owner.access.AddRule(access_pb2.AddRuleRequest(call_id=new_id("call"), rule=rule))
        ).rule
    assert added.created_by == f"{STAFF_ALPHA.uri} (owner)"


async def new_study(scientist: Session) -> coordinator_pb2.Study:
    ids = [f"{hospital}/{DATASET_NAME}" for hospital in HOSPITALS]
    return await create_and_start(scientist, plan=plan(), title="Holes", dataset_ids=ids)


async def pending(owner: Session, study_id: str) -> access_pb2.AccessRequest | None:
    answer = await owner.access.ListRequests(access_pb2.ListRequestsRequest(pending_only=True))
    return next((request for request in answer.requests if request.study_id == study_id), None)


async def test_nothing_is_trained_and_nothing_handed_out_before_every_owner_approves(
    published: Federation, scientist: Session
) -> None:
    """PyGrid: `host-training` is open to anybody, and `/get-model` (629) is not protected."""
    study = await new_study(scientist)
    for hospital in HOSPITALS:
        async with open_session(owners_profile(published.cluster, hospital)) as owner:
            asked = await until(lambda: pending(owner, study.study_id), "The study did not arrive")
            assert asked.state == access_pb2.REQUEST_STATE_PENDING
            ledger = await owner.access.ReadLedger(access_pb2.ReadLedgerRequest())
            assert {entry.kind for entry in ledger.entries} == {"budget set"}
    again = coordinator_pb2.StartStudyRequest(study_id=study.study_id)
    await scientist.coordinator.StartStudy(again, timeout=CALL_TIMEOUT_S)
    waiting = await get_study(scientist, study.study_id)
    assert waiting.state == coordinator_pb2.STUDY_STATE_AWAITING_APPROVAL
    assert list(waiting.rounds) == []

    vector = types_pb2.VectorRef(model_id=study.latest_model_id)
    request = party_pb2.GetSharesRequest(vector=vector).SerializeToString()
    clinic = published.token_of("client-clinic")
    assert await published.answer("party-0", GET_SHARES, CLINIC, clinic, request) is NO
    assert await published.answer("party-0", GET_SHARES, SCIENTIST, None, request) is WHO
    # The plan says download nobody: not even whoever made the study, who has the role that the call needs.
    with pytest.raises(PermissionDenied):
        await fetch_weights(scientist, model_id=study.latest_model_id, plan=plan())
    await published.close()
    await scientist.coordinator.CancelStudy(coordinator_pb2.CancelStudyRequest(study_id=study.study_id))


async def test_a_round_closes_at_its_deadline_without_another_message(
    published: Federation, scientist: Session
) -> None:
    """PyGrid: a cycle closes only when another update arrives. Here one hospital hangs and says nothing.

    And PyGrid's server sees every raw update, where here nobody can fetch one.
    """
    study = await new_study(scientist)
    await approve(published, "gamma", study.study_id)
    hung = published.cluster.process("hospital-gamma").pid
    os.kill(hung, signal.SIGSTOP)
    try:
        for hospital in ("alpha", "beta"):
            await approve(published, hospital, study.study_id)
        completed = await first_round(scientist, study.study_id)
    finally:
        os.kill(hung, signal.SIGCONT)
    assert {uri.rpartition("/")[2] for uri in completed.participant_identities} == set(HOSPITALS)
    assert {uri.rpartition("/")[2] for uri in completed.survivor_identities} == {"alpha", "beta"}
    took = completed.closed_at.ToDatetime() - completed.opened_at.ToDatetime()
    assert DEADLINE_S <= took.total_seconds() < DEADLINE_S + 15

    contribution = types_pb2.RoundRef(study_id=study.study_id, round=1)
    vector = types_pb2.VectorRef(contribution=contribution)
    request = party_pb2.GetSharesRequest(vector=vector).SerializeToString()
    token = published.token_of("client-scientist")
    assert await published.answer("party-0", GET_SHARES, SCIENTIST, token, request) is NO
    worker = published.token_of("hospital-beta", "worker.token")
    assert await published.answer("party-0", GET_SHARES, BETA, worker, request) is NO
    await published.close()


async def first_round(scientist: Session, study_id: str) -> coordinator_pb2.Round:
    """Once it has been added up. A busy machine may need a second try for two updates in time."""
    async with asyncio.timeout(90):
        while True:
            study = await get_study(scientist, study_id)
            assert not study.failure, study.failure
            if study.rounds_done:
                return study.rounds[0]
            await asyncio.sleep(0.2)


async def approve(federation: Federation, hospital: str, study_id: str) -> None:
    """The owner approves the study as it is."""
    async with open_session(owners_profile(federation.cluster, hospital)) as owner:
        asked = await until(lambda: pending(owner, study_id), "The study did not arrive")
        decision = access_pb2.DecideRequestRequest(
            call_id=new_id("call"),
            request_id=asked.request_id,
            plan_hash=asked.plan_hash,
            approve=True,
            granted=WITHOUT_PRIVACY,
            uses=1,
        )
        await owner.access.DecideRequest(decision, timeout=CALL_TIMEOUT_S)


# ---------------------------------------------------------------- uploads


def outside(data: Path) -> Path:
    """A folder whose images are links to files beside the data root."""
    export_part(make_phantoms(8, size=SIZE, seed=8), data.parent / "private")
    folder = data / "links"
    folder.mkdir()
    for name in ("NORMAL", "PNEUMONIA"):
        (folder / name).symlink_to(data.parent / "private" / name)
    return folder


def above(data: Path) -> Path:
    """A path that climbs out of the data root."""
    export_part(make_phantoms(8, size=SIZE, seed=8), data.parent / "neighbour")
    return data / ".." / "neighbour"


def climbing(data: Path) -> Path:
    """An archive whose entries would be written above it, if anybody unpacked it."""
    file = data / "climbing.npz"
    images = data / "images.npy"
    np.save(images, np.zeros((4, SIZE, SIZE), np.uint8))
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("../train_images.npy", "../../train_labels.npy", "/tmp/train_images.npy"):
            archive.write(images, name)
            archive.filelist[-1].filename = name
    images.unlink()
    return file


def bomb(data: Path) -> Path:
    """A kilobyte whose header promises 90 GB."""
    file = data / "bomb.npz"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 300, 300), }"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("train_images.npy", "train_labels.npy"):
            archive.writestr(name, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return file


@pytest.mark.parametrize("trap", [outside, above, climbing, bomb], ids=lambda trap: trap.__name__)
async def test_nothing_is_unpacked_and_nothing_outside_the_data_root_is_read(
    federation: Federation, trap: Any
) -> None:
    """PyGrid: `tar.extractall` on uploads. Nobody uploads here, and owners cannot be tricked either."""
    folder = federation.cluster.folder("hospital-alpha")
    path = trap(folder / "data")
    before = set(folder.rglob("*.npy"))
    request = hospital_pb2.PublishDatasetRequest(
        request_id=new_id("request"), name=f"trap-{trap.__name__}", path=str(path)
    )
    async with open_session(owners_profile(federation.cluster, "alpha")) as owner:
        with pytest.raises(TrefoilError) as told:
            await refused(owner.hospital.PublishDataset(request, timeout=60))
        assert isinstance(told.value, PermissionDenied | InvalidInput | TooLarge)
        listed = await owner.hospital.ListDatasets(hospital_pb2.ListDatasetsRequest())
    assert not [dataset for dataset in listed.datasets if dataset.name.startswith("trap-")]
    assert set(folder.rglob("*.npy")) == before

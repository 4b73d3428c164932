"""Claims: a wallet's owner says which nodes earn for it, without the wallet's key on any of them.

What a claim leaves behind is what a registration leaves behind: the wallet of the node's row, and the time in what both
have signed. Of registrations and claims the latest counts, whichever it was.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from discovery.protocol.claim import MAX_GATEWAY_CHARACTERS, MAX_NUMBER, NodeClaim
from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import Wallet, check_peer_id, check_wallet
from discovery.web.errors import AnnouncedForAnother, BadSignature, NodeUnknown, ProofStale, TooManyNodes
from discovery.web.registration import MAX_SIGNATURE_CHARACTERS, PROOF_SECONDS, NodeId
from far_mesh.marketplace.auth.door import ProviderCaller
from far_mesh.marketplace.auth.service import AuthService
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.http import errors
from far_mesh.marketplace.limits.door import PerAddress
from far_mesh.marketplace.nodes import repository
from far_mesh.marketplace.nodes.endpoints import node_answer
from far_mesh.marketplace.nodes.schemas import NodeAnswer
from far_mesh.marketplace.nodes.service import MAX_NODES_PER_WALLET, NodeService, Sighting, Standing

Number = Annotated[int, Field(gt=0, le=MAX_NUMBER)]


class ClaimRequest(BaseModel):
    """A claim that node and wallet have signed: the typed data (EIP-712) is
    `NodeClaim(string node,address wallet,string gateway,uint256 nonce,uint256 deadline)` in the domain `Far Mesh`,
    version 1, of the chain. ``nonce`` is the time in milliseconds, ``deadline`` in seconds."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "node_id": "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
                    "wallet_address": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
                    "gateway": "https://far.example",
                    "chain_id": 31337,
                    "nonce": 1772366400000,
                    "deadline": 1772367300,
                    "node_signature": "base64url of 64 bytes",
                    "signature": "0x…",
                }
            ]
        },
    )

    node_id: NodeId
    wallet_address: Annotated[str, Field(max_length=64)]
    gateway: Annotated[str, Field(min_length=1, max_length=MAX_GATEWAY_CHARACTERS)]
    chain_id: Number
    nonce: Number
    deadline: Number
    node_signature: Annotated[str, Field(max_length=128, description="Of the node, over the hash of the typed data.")]
    signature: Annotated[str, Field(max_length=MAX_SIGNATURE_CHARACTERS, description="Of the wallet.")]


class ClaimAnswer(BaseModel):
    """The node earns for the wallet, as both say. ``announced``: the swarm hears of it."""

    node_id: str
    wallet_address: str
    claimed_at: datetime
    announced: bool


class ClaimedNodes(BaseModel):
    """The nodes whose claim or registration names the caller's wallet, in the order of their ids."""

    nodes: list[NodeAnswer]


class Claims:
    """Takes claims, and tells a wallet of its own."""

    def __init__(self, database: Database, nodes: NodeService, auth: AuthService, chain_id: int) -> None:
        self._database, self._nodes, self._auth, self._chain_id = database, nodes, auth, chain_id

    async def take(self, said: ClaimRequest) -> ClaimAnswer:
        """A claim counts from now on.

        Raises:
            InvalidIdentity, InvalidWallet, InvalidArgument: it means nothing, or is meant for another gateway or chain.
            BadSignature: node or wallet has not signed it.
            ProofStale: it is too old, from the future, or not newer than what counts already.
            AnnouncedForAnother: in the swarm the node says that it earns for another wallet.
            TooManyNodes: the wallet has as many as it may have.
            ChainUnavailable: the wallet may be a contract, and the chain does not answer.
        """
        claim = self._parsed(said)
        at = datetime.fromtimestamp(claim.nonce / 1000, UTC)
        self._check_time(claim)
        if not claim.is_signed_by_node(said.node_signature):
            raise BadSignature(f"the claim was not signed by the key of {claim.node}")
        standing = await self._standing(claim)
        await self._auth.check_digest(claim.wallet, claim.digest(), said.signature)
        async with self._database.writing() as connection:
            if await repository.count_registered(connection, claim.wallet, claim.node) >= MAX_NODES_PER_WALLET:
                raise TooManyNodes(f"{claim.wallet} has {MAX_NODES_PER_WALLET} nodes already")
            model = standing[0].announcement.model_id if standing else ""
            if not await repository.claim(connection, claim.node, claim.wallet, model, at, now()):
                raise ProofStale("a claim that is as new counts already: make a new one")
        return ClaimAnswer(node_id=claim.node, wallet_address=claim.wallet, claimed_at=at, announced=bool(standing))

    async def of(self, wallet: Wallet) -> list[Standing]:
        """All that is known of the nodes of a wallet."""
        async with self._database.reading() as connection:
            rows = await repository.known_of_wallet(connection, wallet, MAX_NODES_PER_WALLET)
        seen: dict[str, list[Sighting]] = {}
        for sightings in (await self._nodes.everybody()).values():
            for one in sightings:
                seen.setdefault(one.announcement.peer_id, []).append(one)
        return [Standing(check_peer_id(row.node_id), tuple(seen.get(row.node_id, ())), row) for row in rows]

    def _parsed(self, said: ClaimRequest) -> NodeClaim:
        node, wallet = check_peer_id(said.node_id), check_wallet(said.wallet_address)
        if said.gateway != self._nodes.audience:
            raise InvalidArgument(
                f"this claim is for {said.gateway}, and here is {self._nodes.audience}", param="gateway"
            )
        if said.chain_id != self._chain_id:
            raise InvalidArgument(
                f"this claim is for the chain {said.chain_id}, and here is {self._chain_id}", param="chain_id"
            )
        return NodeClaim(node, wallet, said.gateway, said.chain_id, said.nonce, said.deadline)

    def _check_time(self, claim: NodeClaim) -> None:
        here = now().timestamp()
        if here >= claim.deadline:
            raise ProofStale("the deadline of this claim has passed: make a new one")
        if claim.nonce / 1000 > here + PROOF_SECONDS:
            raise ProofStale(f"this claim is from the future; here it is {now().isoformat()}")

    async def _standing(self, claim: NodeClaim) -> tuple[Sighting, ...]:
        try:
            sightings = (await self._nodes.node(claim.node)).sightings
        except NodeUnknown:
            return ()
        for one in sightings:
            if one.announcement.wallet != claim.wallet:
                raise AnnouncedForAnother(
                    f"in the swarm {claim.node} says that it earns for {one.announcement.wallet}: start it with "
                    f"--wallet {claim.wallet}"
                )
        return sightings


router = APIRouter(tags=["provider"])


async def claims_service(request: Request) -> Claims:
    """The service, made by the app."""
    service: Claims = request.app.state.rooms.claims
    return service


Service = Annotated[Claims, Depends(claims_service)]


@router.post("/api/provider/nodes", dependencies=[PerAddress], responses=errors(400, 401, 409, 413, 415, 503))
async def claim(service: Service, body: ClaimRequest) -> ClaimAnswer:
    """Claim a node for a wallet; signed by both, it counts once. `far-node claim` makes one."""
    return await service.take(body)


@router.get("/api/provider/nodes")
async def claimed(service: Service, wallet: ProviderCaller) -> ClaimedNodes:
    """The caller's nodes: those that were claimed or registered for this wallet, and those that have served for it
    (``registered`` is false)."""
    return ClaimedNodes(nodes=[node_answer(one) for one in await service.of(wallet)])

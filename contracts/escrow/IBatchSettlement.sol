// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/**
 * @title IBatchSettlement
 * @notice The part of {IInferenceEscrow} that pays for many requests at once: one line per provider, however many
 * requests there were.
 *
 * The money comes from the pool, which vouchers fill, and from deposits whose owners gave a spending allowance. It goes
 * to providers' credits at once ({settleBatch}), or, for more than a hundred of them, to a payout root from which each
 * claims alone ({commitPayoutRoot}, {claimPayout}).
 *
 * `detailRoot` is the Merkle root of the lines that were netted. It is only announced: with the published lines anybody
 * can check what a batch was made of.
 */
interface IBatchSettlement {
    /// @dev What is taken from users' deposits by their spending allowances.
    struct Charges {
        address[] users;
        uint256[] amounts;
    }

    /**
     * @dev What many providers can claim. `claimableAt` is zero for an epoch that was never committed, or was revoked.
     */
    struct PayoutRoot {
        bytes32 root;
        uint128 total;
        uint64 claimableAt;
    }

    /// @dev What `charges` do not cover of the amounts and the fee came from the pool.
    event BatchSettled(
        uint256 indexed batchId,
        bytes32 indexed detailRoot,
        Charges charges,
        address[] providers,
        uint256[] amounts,
        uint256 fee
    );
    event PoolRefunded(uint256 indexed batchId, bytes32 indexed detailRoot, address[] users, uint256[] amounts);
    /// @dev What `charges` do not cover of the total and the fee came from the pool.
    event PayoutRootCommitted(
        uint256 indexed epoch,
        bytes32 indexed root,
        Charges charges,
        uint256 total,
        uint256 fee,
        uint64 claimableAt
    );
    event PayoutRootRevoked(uint256 indexed epoch, uint256 total);
    event PayoutClaimed(uint256 indexed epoch, address indexed provider, uint256 amount, uint256 cumulative);

    error BatchAlreadySettled(uint256 batchId);
    /// @dev More would be taken from users than the batch pays out.
    error BatchOvercharged(uint256 charged, uint256 needed);
    error EscrowInsufficientPool(uint256 available, uint256 needed);
    error EscrowInsufficientReserve(uint256 available, uint256 needed);
    error PayoutEpochAlreadyUsed(uint256 epoch);
    error PayoutRootEmpty();
    error PayoutRootUnknown(uint256 epoch);
    error PayoutNotClaimable(uint256 epoch, uint64 claimableAt);
    error PayoutNotRevocable(uint256 epoch, uint64 claimableAt);
    error PayoutProofInvalid(uint256 epoch, address provider, uint256 cumulative);
    error PayoutNothingToClaim(address provider, uint256 claimed, uint256 cumulative);

    /**
     * @notice Credits `amounts[i]` to `providers[i]` and `fee` to the platform, out of `charges` and the pool. Settlers
     * only, not while paused, at most a hundred providers.
     *
     * `batchId` can be used once, here or in {refundFromPool}; ids in a row are cheapest. `fee` is what the books off
     * chain say, the sum over the requests of fees rounded down, and at most {IEscrowLedger-feeOn} the total.
     */
    function settleBatch(
        uint256 batchId,
        bytes32 detailRoot,
        Charges calldata charges,
        address[] calldata providers,
        uint256[] calldata amounts,
        uint256 fee
    ) external;

    /**
     * @notice Returns money of the pool to users' deposits: for what was redeemed and could not be paid on, such as
     * work that failed its audit. Settlers only, not while paused. Counts towards the daily cap.
     */
    function refundFromPool(
        uint256 batchId,
        bytes32 detailRoot,
        address[] calldata users,
        uint256[] calldata amounts
    ) external;

    /**
     * @notice Sets `total` aside, out of `charges` and the pool, for the providers in the Merkle tree of `root`, and
     * credits `fee` to the platform as in {settleBatch}. Settlers only, not while paused.
     *
     * The leaf of a provider is `keccak256(bytes.concat(keccak256(abi.encode(provider, cumulative))))`, sorted pairs
     * (the tree of the OpenZeppelin Merkle tree library for `["address", "uint256"]`). `cumulative` is all that this provider
     * was ever given by roots, so whoever missed some epochs claims once.
     *
     * IMPORTANT: The contract cannot add up the leaves of a tree. A root becomes claimable only after `PAYOUT_DELAY`;
     * until then anybody can check the published tree, and a pauser can revoke a root that promises too much.
     */
    function commitPayoutRoot(
        uint256 epoch,
        bytes32 root,
        uint256 total,
        uint256 fee,
        Charges calldata charges
    ) external;

    /**
     * @notice Takes back a root that is not yet claimable; its total goes to the pool, and its epoch stays used.
     * Pausers only. Works while paused.
     *
     * The fee that came with it is not taken back: commit the right root with no fee.
     */
    function revokePayoutRoot(uint256 epoch) external;

    /**
     * @notice Credits `provider` with what is theirs by the root of `epoch` and was not claimed before. Anybody may call
     * it. Works while paused.
     */
    function claimPayout(
        uint256 epoch,
        address provider,
        uint256 cumulative,
        bytes32[] calldata proof
    ) external;

    /// @notice Whether this id was used in {settleBatch} or {refundFromPool}.
    function isBatchSettled(uint256 batchId) external view returns (bool);

    /// @notice The root of an epoch, or one full of zeros.
    function payoutRootOf(uint256 epoch) external view returns (PayoutRoot memory);

    /// @notice What `provider` has claimed from all roots together.
    function claimedOf(address provider) external view returns (uint256);
}

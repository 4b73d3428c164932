// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/**
 * @title IRequestEscrows
 * @notice The part of {IInferenceEscrow} that locks an amount for one request, and releases or returns it.
 *
 * Up to and including the deadline of an escrow a settler can release it; after the deadline it can only be cancelled,
 * by the user too. The two windows do not overlap, so there is no race to win.
 */
interface IRequestEscrows {
    enum EscrowStatus {
        None,
        Open,
        Released,
        Cancelled
    }

    /**
     * @dev One request's money.
     *
     * `allowanceEpoch` is zero for an escrow that the user created or signed. For one made from the user's spending
     * allowance it says which call of {IEscrowLedger-setSpendingAllowance} gave the consent; see there.
     */
    struct Escrow {
        address user;
        uint128 amount;
        uint64 deadline;
        uint16 feeBps;
        EscrowStatus status;
        uint40 allowanceEpoch;
    }

    /**
     * @dev What a user signs (EIP-712) so that somebody else may create one escrow for them.
     *
     * `maxAmount` is the amount that is locked, and so the most that the request can cost. `nonce` is any number that
     * this user has not used before; order does not matter. `validUntil` is the last second in which the escrow can
     * be created.
     */
    struct EscrowIntent {
        address user;
        bytes32 requestId;
        uint256 maxAmount;
        uint32 lockSeconds;
        uint16 maxFeeBps;
        uint256 nonce;
        uint64 validUntil;
    }

    /// @dev One escrow's pay-out in a {releaseBatch}. `amounts[i]` is what `providers[i]` receives, net of the fee.
    struct Release {
        bytes32 escrowId;
        address[] providers;
        uint256[] amounts;
    }

    event SpendingAllowanceSpent(address indexed user, bytes32 indexed escrowId, uint256 amount);
    event SpendingAllowanceRestored(address indexed user, bytes32 indexed escrowId, uint256 amount);
    event NonceUsed(address indexed user, uint256 indexed nonce);
    event NonceCancelled(address indexed user, uint256 indexed nonce);
    event EscrowCreated(
        bytes32 indexed escrowId,
        bytes32 indexed requestId,
        address indexed user,
        uint256 amount,
        uint64 deadline,
        uint16 feeBps
    );
    event EscrowReleased(bytes32 indexed escrowId, address[] providers, uint256[] amounts, uint256 fee, uint256 refund);
    event EscrowCancelled(bytes32 indexed escrowId, uint256 refund);

    error EscrowAlreadyExists(bytes32 escrowId, EscrowStatus status);
    error EscrowNotOpen(bytes32 escrowId, EscrowStatus status);
    error EscrowLockOutOfRange(uint32 lockSeconds, uint32 minimum, uint32 maximum);
    error EscrowDeadlinePassed(bytes32 escrowId, uint64 deadline);
    error EscrowDeadlineNotPassed(bytes32 escrowId, uint64 deadline);
    error EscrowAmountExceeded(bytes32 escrowId, uint256 available, uint256 needed);
    error EscrowIntentExpired(uint64 validUntil);
    error EscrowNonceAlreadyUsed(address user, uint256 nonce);

    /**
     * @notice Locks `amount` of the caller's deposit for 30 minutes.
     * @return escrowId see {escrowIdOf}
     */
    function createEscrow(bytes32 requestId, uint256 amount) external returns (bytes32 escrowId);

    /**
     * @notice Locks `intent.maxAmount` of the deposit of `intent.user`, who signed the intent. Anybody may submit it.
     *
     * The signature is EIP-712 in the domain of this contract, by a key or, for a contract, by EIP-1271.
     * @return escrowId see {escrowIdOf}
     */
    function createEscrowFor(
        EscrowIntent calldata intent,
        bytes calldata signature
    ) external returns (bytes32 escrowId);

    /**
     * @notice Locks `amount` of the deposit of `user` by the consent given in {IEscrowLedger-setSpendingAllowance}.
     * Settlers only.
     * @return escrowId see {escrowIdOf}
     */
    function createEscrowWithAllowance(
        address user,
        bytes32 requestId,
        uint256 amount,
        uint32 lockSeconds
    ) external returns (bytes32 escrowId);

    /// @notice Makes the intent of the caller with this nonce worthless, if it was not submitted yet.
    function cancelNonce(uint256 nonce) external;

    /**
     * @notice Credits `amounts[i]` to `providers[i]` and the platform's fee on top, out of an open escrow, and
     * returns the rest to the user. Settlers only, not while paused, and not after the deadline.
     *
     * Amounts are net: the fee is {IEscrowLedger-feeOn} their total, at the rate that was frozen when the escrow was
     * created.
     */
    function releaseMultiple(bytes32 escrowId, address[] calldata providers, uint256[] calldata amounts) external;

    /// @notice Does several {releaseMultiple} in one transaction: all of them, or none.
    function releaseBatch(Release[] calldata releases) external;

    /**
     * @notice Returns all of an open escrow to the user's deposit.
     *
     * The user can do this after the deadline, paused or not. A settler can do it at any time, but not while paused,
     * so that a pause also stops a stolen settler key from cancelling work that has been done.
     */
    function cancel(bytes32 escrowId) external;

    /// @notice The identifier of the escrow of `user` for `requestId`: nobody can occupy somebody else's.
    function escrowIdOf(address user, bytes32 requestId) external pure returns (bytes32);

    /// @notice The escrow, or one full of zeros if there is none.
    function escrowOf(bytes32 escrowId) external view returns (Escrow memory);

    /// @notice Whether an intent of `user` with this nonce was used or cancelled.
    function isNonceUsed(address user, uint256 nonce) external view returns (bool);
}

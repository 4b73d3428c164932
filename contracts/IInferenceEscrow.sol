// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/**
 * @title IInferenceEscrow
 * @notice Holds what users prepay for inference, and pays it to the providers who did the work.
 *
 * The life of one request:
 *
 * 1. the user deposits tokens;
 * 2. an amount of the deposit is locked in an escrow until a deadline, for one request;
 * 3. up to and including the deadline a settler releases the escrow: providers and the platform are credited, and
 *    the rest goes back to the user's deposit;
 * 4. after the deadline an escrow that was not released can only be cancelled, by the user too, and all of it goes
 *    back to the user's deposit.
 *
 * Nothing is pushed to anybody: providers call {withdraw}, users call {withdrawDeposit}.
 */
interface IInferenceEscrow {
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
     * allowance it says which call of {setSpendingAllowance} gave the consent; see there.
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

    /// @dev `amount` is what arrived, which for a token that takes a fee is less than what `payer` sent.
    event Deposited(address indexed user, address indexed payer, uint256 amount);
    event DepositWithdrawn(address indexed user, uint256 amount);
    event SpendingAllowanceSet(address indexed user, uint256 amount);
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
    event CreditWithdrawn(address indexed provider, address indexed to, uint256 amount);
    event FeesWithdrawn(address indexed to, uint256 amount);
    event FeeBpsSet(uint16 feeBps);
    event ReleaseCapSet(uint256 releaseCapPerDay);

    /// @dev `account` is the zero address or the escrow contract itself, neither of which can use tokens.
    error EscrowInvalidAddress(address account);
    error EscrowZeroAmount();
    error EscrowInsufficientDeposit(address user, uint256 available, uint256 needed);
    error EscrowInsufficientAllowance(address user, uint256 available, uint256 needed);
    error EscrowInsufficientFees(uint256 available, uint256 needed);
    error EscrowNoCredit(address provider);
    error EscrowAlreadyExists(bytes32 escrowId, EscrowStatus status);
    error EscrowNotOpen(bytes32 escrowId, EscrowStatus status);
    error EscrowLockOutOfRange(uint32 lockSeconds, uint32 minimum, uint32 maximum);
    error EscrowDeadlinePassed(bytes32 escrowId, uint64 deadline);
    error EscrowDeadlineNotPassed(bytes32 escrowId, uint64 deadline);
    error EscrowAmountExceeded(bytes32 escrowId, uint256 available, uint256 needed);
    error EscrowReleaseCapExceeded(uint256 cap, uint256 releasedToday, uint256 needed);
    error EscrowProviderCountOutOfRange(uint256 count, uint256 maximum);
    error EscrowLengthMismatch(uint256 providers, uint256 amounts);
    error EscrowFeeTooHigh(uint16 feeBps, uint16 maximum);
    error EscrowIntentExpired(uint64 validUntil);
    error EscrowNonceAlreadyUsed(address user, uint256 nonce);
    error EscrowInvalidSignature(address user);

    /**
     * @notice Adds `amount` of the caller's tokens to the caller's deposit. Needs an ERC-20 approval.
     *
     * What is booked is what arrives. Stopped while paused.
     */
    function deposit(uint256 amount) external;

    /// @notice Adds `amount` of the caller's tokens to the deposit of `user`. See {deposit}.
    function depositFor(address user, uint256 amount) external;

    /**
     * @notice Adds `amount` of the tokens of `owner` to the deposit of `owner`, approved by an EIP-2612 signature.
     * Anybody may submit it.
     *
     * A permit that somebody has already submitted does not stop the deposit, as long as the approval stands.
     *
     * IMPORTANT: For that reason an approval which `owner` left standing for this contract can be turned into a
     * deposit of `owner` by anybody. It can go nowhere else, and {withdrawDeposit} undoes it.
     */
    function depositWithPermit(address owner, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice Sends `amount` of the caller's deposit, which is the part not locked in escrows, back to the caller.
    /// Works while paused.
    function withdrawDeposit(uint256 amount) external;

    /**
     * @notice Consents to escrows of at most `amount` in all being made from the caller's deposit without asking
     * again, for users of an API key who cannot sign every request. Zero withdraws the consent. Works while paused.
     *
     * What comes back from such an escrow counts as not spent and raises the allowance again, but only if the caller
     * has not set it anew in the meantime: from this call on, `amount` is the limit, whatever is still under way.
     */
    function setSpendingAllowance(uint256 amount) external;

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
     * @notice Locks `amount` of the deposit of `user` by the consent given in {setSpendingAllowance}. Settlers only.
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
     * Amounts are net: the fee is {feeOn} their total, at the rate that was frozen when the escrow was created.
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

    /// @notice Sends everything that the caller has been credited with to `to`. Works while paused.
    function withdraw(address to) external;

    /// @notice Sends `amount` of the fees to `to`. Treasurers only.
    function withdrawFees(address to, uint256 amount) external;

    /// @notice Sets the fee of escrows created from now on. Treasurers only.
    function setFeeBps(uint16 newFeeBps) external;

    /**
     * @notice Sets how much may be released, fees included, in one UTC day. Default admin only.
     *
     * This is the limit on what a stolen settler key can take. Zero stops releases altogether.
     */
    function setReleaseCapPerDay(uint256 newCap) external;

    /// @notice Stops deposits, new escrows, releases and the settlers' cancel. Pausers only.
    function pause() external;

    /// @notice Ends a pause. Pausers only.
    function unpause() external;

    /// @notice The identifier of the escrow of `user` for `requestId`: nobody can occupy somebody else's.
    function escrowIdOf(address user, bytes32 requestId) external pure returns (bytes32);

    /// @notice The escrow, or one full of zeros if there is none.
    function escrowOf(bytes32 escrowId) external view returns (Escrow memory);

    /// @notice The part of the deposit of `user` that is not locked in escrows.
    function depositOf(address user) external view returns (uint256);

    /// @notice How much may still be locked for `user` without asking. Not limited by the deposit.
    function spendingAllowance(address user) external view returns (uint256);

    /// @notice Whether an intent of `user` with this nonce was used or cancelled.
    function isNonceUsed(address user, uint256 nonce) external view returns (bool);

    /// @notice What `provider` has earned and not withdrawn.
    function creditOf(address provider) external view returns (uint256);

    /**
     * @notice The fee for paying `total` to providers: `total * feeBps / (10000 - feeBps)`, so that the fee is
     * `feeBps` of both together, rounded down to a multiple of `UNIT`.
     */
    function feeOn(uint256 total, uint16 feeBps_) external pure returns (uint256);

    /// @notice The fee of escrows created now, in hundredths of a percent of the gross amount.
    function feeBps() external view returns (uint16);

    /// @notice How much may be released in one UTC day.
    function releaseCapPerDay() external view returns (uint256);

    /// @notice How much has been released in the present UTC day, fees included.
    function releasedToday() external view returns (uint256);

    /// @notice The sum of all deposits. With the three totals below it is never more than the tokens held here.
    function totalDeposits() external view returns (uint256);

    /// @notice The sum of all open escrows.
    function totalEscrowed() external view returns (uint256);

    /// @notice The sum of all providers' credits.
    function totalCredits() external view returns (uint256);

    /// @notice The platform's fees that were not withdrawn.
    function feesAccrued() external view returns (uint256);
}

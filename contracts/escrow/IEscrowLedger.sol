// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/**
 * @title IEscrowLedger
 * @notice The part of {IInferenceEscrow} that everything else stands on: users' deposits and consents, what has been
 * credited and not yet taken out, the fee, the daily cap, and the pause.
 *
 * Every token that the contract has booked lies in one of seven pots: deposits, open escrows, channels, the pool,
 * payout roots, credits, fees. Their sum is never more than the tokens held.
 */
interface IEscrowLedger {
    /// @dev `amount` is what arrived, which for a token that takes a fee is less than what `payer` sent.
    event Deposited(address indexed user, address indexed payer, uint256 amount);
    event DepositWithdrawn(address indexed user, uint256 amount);
    event SpendingAllowanceSet(address indexed user, uint256 amount);
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
    error EscrowReleaseCapExceeded(uint256 cap, uint256 releasedToday, uint256 needed);
    error EscrowProviderCountOutOfRange(uint256 count, uint256 maximum);
    error EscrowLengthMismatch(uint256 accounts, uint256 amounts);
    error EscrowFeeTooHigh(uint256 fee, uint256 maximum);
    error EscrowInvalidSignature(address signer);

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

    /// @notice Sends `amount` of the caller's deposit, which is the part not locked in escrows or channels, back to the
    /// caller. Works while paused.
    function withdrawDeposit(uint256 amount) external;

    /**
     * @notice Consents to at most `amount` in all being spent from the caller's deposit without asking again, for
     * users of an API key who cannot sign every request. Zero withdraws the consent. Works while paused.
     *
     * What comes back from an escrow made by this consent counts as not spent and raises the allowance again, but only
     * if the caller has not set it anew in the meantime: from this call on, `amount` is the limit, whatever is still
     * under way.
     *
     * NOTE: The most that can be set is `type(uint104).max`, more than any supply; larger numbers mean that.
     */
    function setSpendingAllowance(uint256 amount) external;

    /// @notice Sends everything that the caller has been credited with to `to`. Works while paused.
    function withdraw(address to) external;

    /// @notice Sends `amount` of the fees to `to`. Treasurers only.
    function withdrawFees(address to, uint256 amount) external;

    /// @notice Sets the fee of escrows created, and of batches settled, from now on. Treasurers only.
    function setFeeBps(uint16 newFeeBps) external;

    /**
     * @notice Sets how much may be released, settled or refunded from the pool, fees included, in one UTC day. Default
     * admin only.
     *
     * This is the limit on what a stolen settler key can take. Zero stops all of these.
     */
    function setReleaseCapPerDay(uint256 newCap) external;

    /**
     * @notice Stops deposits, new escrows and channels, releases, redemptions, settlements and what settlers may
     * cancel or close. Pausers only.
     */
    function pause() external;

    /// @notice Ends a pause. Pausers only.
    function unpause() external;

    /// @notice The part of the deposit of `user` that is not locked in escrows or channels.
    function depositOf(address user) external view returns (uint256);

    /// @notice How much may still be spent of the deposit of `user` without asking. Not limited by the deposit.
    function spendingAllowance(address user) external view returns (uint256);

    /// @notice What `provider` has earned and not withdrawn. Payouts that were not claimed are not in it.
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

    /// @notice The sum of all deposits. With the six totals below it is never more than the tokens held here.
    function totalDeposits() external view returns (uint256);

    /// @notice The sum of all open escrows.
    function totalEscrowed() external view returns (uint256);

    /// @notice The sum of what lies in channels and was not redeemed.
    function totalInChannels() external view returns (uint256);

    /// @notice What was redeemed from channels and not yet paid on.
    function poolBalance() external view returns (uint256);

    /// @notice What is set aside for payout roots and not yet claimed.
    function totalReserved() external view returns (uint256);

    /// @notice The sum of all providers' credits.
    function totalCredits() external view returns (uint256);

    /// @notice The platform's fees that were not withdrawn.
    function feesAccrued() external view returns (uint256);
}

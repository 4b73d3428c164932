// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/**
 * @title IPaymentChannels
 * @notice The part of {IInferenceEscrow} for users who pay as they go, with vouchers that cost no gas.
 *
 * 1. the user opens a channel with a part of the deposit, and names the key that signs for it;
 * 2. while being served, the user signs a voucher for every stretch of work: `Voucher(bytes32 channelId,uint128
 *    maxClaimableAmount)` in the EIP-712 domain of this contract. A voucher is cumulative: it covers all that was ever
 *    served over the channel, and a later one replaces an earlier one;
 * 3. now and then a settler redeems what was earned, at most up to the latest voucher, into the pool, from which
 *    {IBatchSettlement} pays the providers;
 * 4. the user starts to close the channel, waits for `closeDelay` so that the last voucher can be redeemed, and
 *    finishes: what is left returns to the deposit.
 */
interface IPaymentChannels {
    enum ChannelStatus {
        None,
        Open,
        Closing,
        Closed
    }

    /**
     * @dev One user's running account.
     *
     * `amount` is all that was ever put in, `redeemed` all that was ever taken out by vouchers. `signer` may be the
     * user, a contract (EIP-1271), or a key made for the session, so that the wallet is asked once. `closesAt` is the
     * last second in which vouchers are redeemed once closing has started, before that zero.
     */
    struct Channel {
        address user;
        address signer;
        uint104 amount;
        uint104 redeemed;
        uint32 closeDelay;
        uint40 closesAt;
        ChannelStatus status;
    }

    /**
     * @dev A voucher, its signature, and how much of it was earned: `totalClaimed` is cumulative like the voucher and
     * not above it. So a user can sign for the most that the next stretch may cost, and pay what it did cost.
     */
    struct Claim {
        bytes32 channelId;
        uint128 maxClaimableAmount;
        uint128 totalClaimed;
        bytes signature;
    }

    event ChannelOpened(
        bytes32 indexed channelId,
        address indexed user,
        address indexed signer,
        bytes32 salt,
        uint256 amount,
        uint32 closeDelay
    );
    event ChannelToppedUp(bytes32 indexed channelId, uint256 amount);
    event VoucherRedeemed(bytes32 indexed channelId, uint256 amount, uint256 totalClaimed);
    event ChannelClosing(bytes32 indexed channelId, uint40 closesAt);
    event ChannelClosed(bytes32 indexed channelId, uint256 refund);

    error ChannelAlreadyExists(bytes32 channelId, ChannelStatus status);
    error ChannelNotOpen(bytes32 channelId, ChannelStatus status);
    error ChannelNotClosing(bytes32 channelId, ChannelStatus status);
    error ChannelNotOfCaller(bytes32 channelId, address caller);
    error ChannelCloseDelayOutOfRange(uint32 closeDelay, uint32 minimum, uint32 maximum);
    error ChannelDeadlinePassed(bytes32 channelId, uint40 closesAt);
    error ChannelDeadlineNotPassed(bytes32 channelId, uint40 closesAt);
    /// @dev More is claimed than lies in the channel, or than the voucher allows.
    error ChannelAmountExceeded(bytes32 channelId, uint256 available, uint256 needed);
    /// @dev The voucher is stale: as much or more was redeemed before.
    error ChannelNothingToRedeem(bytes32 channelId, uint256 redeemed, uint256 totalClaimed);

    /**
     * @notice Moves `amount` of the caller's deposit into a new channel whose vouchers `signer` signs. Not while paused.
     *
     * `salt` is any number that the caller has not used before. `closeDelay` is how long the operator has to redeem
     * the last voucher, 15 minutes to 30 days; a gateway may ask for a minimum of its own.
     *
     * IMPORTANT: Whoever has the key of `signer` can spend the whole channel. A channel cannot change its signer; close
     * it if the key is lost or stolen.
     * @return channelId see {channelIdOf}
     */
    function openChannel(
        bytes32 salt,
        address signer,
        uint256 amount,
        uint32 closeDelay
    ) external returns (bytes32 channelId);

    /// @notice Moves `amount` more of the caller's deposit into the caller's open channel. Not while paused.
    function topUp(bytes32 channelId, uint256 amount) external;

    /**
     * @notice Moves what was earned by these vouchers from their channels to the pool: all of them, or none. Settlers
     * only, not while paused, and for a channel that is closing not after `closesAt`.
     *
     * NOTE: A signer that is a contract decides anew each time whether a signature of its is good, and can use much
     * gas in doing so. Redeem such channels in a transaction of their own, before much is owed.
     */
    function redeemVouchers(Claim[] calldata claims) external;

    /// @notice Starts the delay after which the caller's channel can be closed. Works while paused.
    function startClose(bytes32 channelId) external;

    /**
     * @notice Closes a channel whose user has started to close it, and returns what is left to the user's deposit.
     *
     * After `closesAt` anybody can do this, paused or not. Before it a settler can, who has nothing more to redeem, but
     * not while paused.
     */
    function finishClose(bytes32 channelId) external;

    /// @notice The identifier of the channel of `user` with `salt`: nobody can occupy somebody else's.
    function channelIdOf(address user, bytes32 salt) external pure returns (bytes32);

    /// @notice The channel, or one full of zeros if there is none.
    function channelOf(bytes32 channelId) external view returns (Channel memory);
}

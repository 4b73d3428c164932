// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/**
 * @title IFarStaking
 * @notice Holds what providers put up as security, which they lose in part when they are caught cheating.
 *
 * A provider stakes, and can have it back after `unbondingPeriod`. A slash is proposed with the hash of its evidence;
 * for `vetoWindow` it can be examined, appealed and vetoed, and only then executed. Unbonding takes longer than the veto
 * window, and what a live proposal asks for cannot be taken out, so nobody runs away from a slash.
 *
 * NOTE: This contract knows nothing of the escrow: a fault in one does not reach the other.
 */
interface IFarStaking {
    enum SlashStatus {
        None,
        Proposed,
        Vetoed,
        Executed
    }

    /// @dev `unbonding` can be taken out from the second `readyAt` on.
    struct Stake {
        uint128 active;
        uint128 unbonding;
        uint64 readyAt;
    }

    /// @dev A proposal is executed from `executableAt` to `expiresAt`, both included. After that it has lapsed.
    struct Slash {
        address provider;
        uint64 executableAt;
        SlashStatus status;
        uint128 amount;
        uint64 expiresAt;
    }

    event Staked(address indexed provider, uint256 amount);
    event UnstakeRequested(address indexed provider, uint256 amount, uint64 readyAt);
    event Unstaked(address indexed provider, address indexed to, uint256 amount);
    event SlashProposed(
        bytes32 indexed slashId,
        address indexed provider,
        uint256 amount,
        bytes32 evidenceHash,
        uint64 executableAt
    );
    event SlashVetoed(bytes32 indexed slashId, address indexed provider);
    event SlashExecuted(bytes32 indexed slashId, address indexed provider, uint256 amount);
    event SlashedWithdrawn(address indexed to, uint256 amount);

    error StakingInvalidAddress(address account);
    error StakingZeroAmount();
    error StakingPeriodsOutOfRange(uint32 unbondingPeriod, uint32 vetoWindow);
    error StakingSlashCapOutOfRange(uint16 maxSlashBps);
    error StakingInsufficientStake(address provider, uint256 available, uint256 needed);
    error StakingNothingUnbonding(address provider);
    error StakingNotReady(address provider, uint64 readyAt);
    /// @dev All that is unbonding is asked for by a live proposal.
    error StakingHeldBySlash(address provider, bytes32 slashId);
    error SlashEvidenceEmpty();
    error SlashAlreadyProposed(bytes32 slashId, SlashStatus status);
    error SlashAlreadyPending(address provider, bytes32 slashId);
    error SlashAboveCap(address provider, uint256 amount, uint256 maximum);
    error SlashNotProposed(bytes32 slashId, SlashStatus status);
    error SlashNotExecutable(bytes32 slashId, uint64 executableAt);
    error SlashExpired(bytes32 slashId, uint64 expiresAt);
    error SlashedInsufficient(uint256 available, uint256 needed);

    /// @notice Adds `amount` of the caller's tokens to the caller's stake. What is booked is what arrives. Needs an
    /// ERC-20 approval. Stopped while paused.
    function stake(uint256 amount) external;

    /**
     * @notice Starts to unbond `amount` of the caller's stake. Works while paused.
     *
     * NOTE: There is one clock per provider: a further request joins the one that runs, and starts it again.
     */
    function requestUnstake(uint256 amount) external;

    /// @notice Sends to `to` what has unbonded, except what a live proposal asks for. Works while paused.
    function finishUnstake(address to) external;

    /**
     * @notice Proposes to take `amount` of the stake of `provider`, unbonding part included. Slashers only, not while
     * paused.
     *
     * At most `maxSlashBps` of the stake, one live proposal per provider, and the same evidence once only, even if it
     * was vetoed or has lapsed. `evidenceHash` is the hash of what anybody can be shown: receipts and their audit.
     * @return slashId see {slashIdOf}
     */
    function proposeSlash(address provider, uint256 amount, bytes32 evidenceHash) external returns (bytes32 slashId);

    /// @notice Ends a proposal for good. Vetoers only, until it is executed. Works while paused.
    function vetoSlash(bytes32 slashId) external;

    /// @notice Takes what was proposed, once the veto window is over: active stake first. Slashers only, not while
    /// paused, and within `EXECUTION_WINDOW`.
    function executeSlash(bytes32 slashId) external;

    /// @notice Sends `amount` of what was slashed to `to`. Treasurers only.
    function withdrawSlashed(address to, uint256 amount) external;

    /// @notice Stops new stakes, proposals and executions. Pausers only.
    function pause() external;

    /// @notice Ends a pause. Pausers only.
    function unpause() external;

    /// @notice The stake of `provider`.
    function stakeOf(address provider) external view returns (Stake memory);

    /// @notice The proposal, or one full of zeros.
    function slashOf(bytes32 slashId) external view returns (Slash memory);

    /// @notice What a live proposal asks of `provider`, or zero.
    function pendingSlashOf(address provider) external view returns (uint256);

    /// @notice `keccak256(abi.encode(provider, evidenceHash))`.
    function slashIdOf(address provider, bytes32 evidenceHash) external pure returns (bytes32);

    /// @notice The sum of all stakes, unbonding included. With {slashedAccrued} it is never more than the tokens here.
    function totalStaked() external view returns (uint256);

    /// @notice What was slashed and not withdrawn.
    function slashedAccrued() external view returns (uint256);
}

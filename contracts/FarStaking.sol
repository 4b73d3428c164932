// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {AccessControlDefaultAdminRules} from "@openzeppelin/contracts/access/extensions/AccessControlDefaultAdminRules.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IFarStaking} from "./IFarStaking.sol";

/**
 * @title FarStaking
 * @notice See {IFarStaking} for what each function promises.
 *
 * One token and fixed terms; no proxy. Tokens that are sent here without a call belong to nobody and stay.
 *
 * IMPORTANT: Not for tokens whose balances change by themselves.
 */
contract FarStaking is IFarStaking, AccessControlDefaultAdminRules, Pausable, ReentrancyGuardTransient {
    using SafeCast for uint256;
    using SafeERC20 for IERC20;

    bytes32 public constant SLASHER_ROLE = keccak256("SLASHER_ROLE");
    bytes32 public constant VETOER_ROLE = keccak256("VETOER_ROLE");
    bytes32 public constant PAUSER_ROLE = keccak256("PAUSER_ROLE");
    bytes32 public constant TREASURER_ROLE = keccak256("TREASURER_ROLE");

    uint32 public constant MIN_VETO_WINDOW = 1 days;
    uint32 public constant MAX_UNBONDING_PERIOD = 90 days;
    /// @notice How long a proposal can be executed before it lapses, so that it cannot hold a stake for ever.
    uint32 public constant EXECUTION_WINDOW = 7 days;

    uint16 private constant BPS = 10_000;

    struct Holders {
        address admin;
        address slasher;
        address vetoer;
        address pauser;
        address treasurer;
    }

    /// @notice The token that is staked.
    IERC20 public immutable token;
    /// @notice How long it takes from {requestUnstake} to {finishUnstake}.
    uint32 public immutable unbondingPeriod;
    /// @notice How long a proposal can be examined before it can be executed.
    uint32 public immutable vetoWindow;
    /// @notice The most that one proposal can take, in hundredths of a percent of the stake.
    uint16 public immutable maxSlashBps;

    mapping(address provider => Stake) private _stakes;
    mapping(address provider => bytes32) private _latestSlash;
    mapping(bytes32 slashId => Slash) private _slashes;
    uint256 private _totalStaked;
    uint256 private _slashedAccrued;

    constructor(
        IERC20 token_,
        uint48 adminDelay,
        Holders memory holders,
        uint32 unbondingPeriod_,
        uint32 vetoWindow_,
        uint16 maxSlashBps_
    ) AccessControlDefaultAdminRules(adminDelay, holders.admin) {
        _checkUsable(address(token_));
        _checkUsable(holders.slasher);
        _checkUsable(holders.vetoer);
        _checkUsable(holders.pauser);
        _checkUsable(holders.treasurer);
        require(
            vetoWindow_ >= MIN_VETO_WINDOW && unbondingPeriod_ > vetoWindow_ && unbondingPeriod_ <= MAX_UNBONDING_PERIOD,
            StakingPeriodsOutOfRange(unbondingPeriod_, vetoWindow_)
        );
        require(maxSlashBps_ != 0 && maxSlashBps_ <= BPS, StakingSlashCapOutOfRange(maxSlashBps_));
        token = token_;
        unbondingPeriod = unbondingPeriod_;
        vetoWindow = vetoWindow_;
        maxSlashBps = maxSlashBps_;
        _grantRole(SLASHER_ROLE, holders.slasher);
        _grantRole(VETOER_ROLE, holders.vetoer);
        _grantRole(PAUSER_ROLE, holders.pauser);
        _grantRole(TREASURER_ROLE, holders.treasurer);
    }

    // ---- of the provider

    /// @inheritdoc IFarStaking
    function stake(uint256 amount) external whenNotPaused nonReentrant {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - before;
        require(received != 0, StakingZeroAmount());
        _stakes[msg.sender].active += received.toUint128();
        _totalStaked += received;
        emit Staked(msg.sender, received);
    }

    /// @inheritdoc IFarStaking
    function requestUnstake(uint256 amount) external nonReentrant {
        require(amount != 0, StakingZeroAmount());
        Stake storage own = _stakes[msg.sender];
        uint256 available = own.active;
        require(amount <= available, StakingInsufficientStake(msg.sender, available, amount));
        uint64 readyAt = (block.timestamp + unbondingPeriod).toUint64();
        own.active = (available - amount).toUint128();
        own.unbonding += amount.toUint128();
        own.readyAt = readyAt;
        emit UnstakeRequested(msg.sender, amount, readyAt);
    }

    /// @inheritdoc IFarStaking
    function finishUnstake(address to) external nonReentrant {
        _checkUsable(to);
        Stake storage own = _stakes[msg.sender];
        uint256 unbonding = own.unbonding;
        require(unbonding != 0, StakingNothingUnbonding(msg.sender));
        require(block.timestamp >= own.readyAt, StakingNotReady(msg.sender, own.readyAt));
        uint256 amount = Math.min(unbonding, _stakeOf(msg.sender) - pendingSlashOf(msg.sender));
        require(amount != 0, StakingHeldBySlash(msg.sender, _latestSlash[msg.sender]));
        own.unbonding = (unbonding - amount).toUint128();
        _totalStaked -= amount;
        emit Unstaked(msg.sender, to, amount);
        token.safeTransfer(to, amount);
    }

    // ---- slashing

    /// @inheritdoc IFarStaking
    function proposeSlash(
        address provider,
        uint256 amount,
        bytes32 evidenceHash
    ) external onlyRole(SLASHER_ROLE) whenNotPaused returns (bytes32 slashId) {
        require(amount != 0, StakingZeroAmount());
        require(evidenceHash != bytes32(0), SlashEvidenceEmpty());
        slashId = slashIdOf(provider, evidenceHash);
        SlashStatus status = _slashes[slashId].status;
        require(status == SlashStatus.None, SlashAlreadyProposed(slashId, status));
        require(pendingSlashOf(provider) == 0, SlashAlreadyPending(provider, _latestSlash[provider]));
        uint256 maximum = (_stakeOf(provider) * maxSlashBps) / BPS;
        require(amount <= maximum, SlashAboveCap(provider, amount, maximum));

        uint64 executableAt = (block.timestamp + vetoWindow).toUint64();
        _slashes[slashId] = Slash({
            provider: provider,
            executableAt: executableAt,
            status: SlashStatus.Proposed,
            amount: amount.toUint128(),
            expiresAt: executableAt + EXECUTION_WINDOW
        });
        _latestSlash[provider] = slashId;
        emit SlashProposed(slashId, provider, amount, evidenceHash, executableAt);
    }

    /// @inheritdoc IFarStaking
    function vetoSlash(bytes32 slashId) external onlyRole(VETOER_ROLE) {
        Slash storage slash = _proposed(slashId);
        slash.status = SlashStatus.Vetoed;
        emit SlashVetoed(slashId, slash.provider);
    }

    /// @inheritdoc IFarStaking
    function executeSlash(bytes32 slashId) external onlyRole(SLASHER_ROLE) whenNotPaused nonReentrant {
        Slash storage slash = _proposed(slashId);
        require(block.timestamp >= slash.executableAt, SlashNotExecutable(slashId, slash.executableAt));
        require(block.timestamp <= slash.expiresAt, SlashExpired(slashId, slash.expiresAt));
        uint256 amount = slash.amount;
        slash.status = SlashStatus.Executed;
        // What a live proposal asks for was held back from unstaking, so it is there.
        Stake storage theirs = _stakes[slash.provider];
        uint256 fromActive = Math.min(amount, theirs.active);
        theirs.active -= fromActive.toUint128();
        theirs.unbonding -= (amount - fromActive).toUint128();
        _totalStaked -= amount;
        _slashedAccrued += amount;
        emit SlashExecuted(slashId, slash.provider, amount);
    }

    /// @inheritdoc IFarStaking
    function withdrawSlashed(address to, uint256 amount) external onlyRole(TREASURER_ROLE) nonReentrant {
        _checkUsable(to);
        require(amount != 0, StakingZeroAmount());
        uint256 available = _slashedAccrued;
        require(amount <= available, SlashedInsufficient(available, amount));
        _slashedAccrued = available - amount;
        emit SlashedWithdrawn(to, amount);
        token.safeTransfer(to, amount);
    }

    // ---- administration

    /// @inheritdoc IFarStaking
    function pause() external onlyRole(PAUSER_ROLE) {
        _pause();
    }

    /// @inheritdoc IFarStaking
    function unpause() external onlyRole(PAUSER_ROLE) {
        _unpause();
    }

    // ---- views

    /// @inheritdoc IFarStaking
    function stakeOf(address provider) external view returns (Stake memory) {
        return _stakes[provider];
    }

    /// @inheritdoc IFarStaking
    function slashOf(bytes32 slashId) external view returns (Slash memory) {
        return _slashes[slashId];
    }

    /// @inheritdoc IFarStaking
    function totalStaked() external view returns (uint256) {
        return _totalStaked;
    }

    /// @inheritdoc IFarStaking
    function slashedAccrued() external view returns (uint256) {
        return _slashedAccrued;
    }

    /// @inheritdoc IFarStaking
    function pendingSlashOf(address provider) public view returns (uint256) {
        Slash storage latest = _slashes[_latestSlash[provider]];
        bool live = latest.status == SlashStatus.Proposed && block.timestamp <= latest.expiresAt;
        return live ? latest.amount : 0;
    }

    /// @inheritdoc IFarStaking
    function slashIdOf(address provider, bytes32 evidenceHash) public pure returns (bytes32) {
        return keccak256(abi.encode(provider, evidenceHash));
    }

    // ---- small rules

    function _stakeOf(address provider) private view returns (uint256) {
        Stake storage theirs = _stakes[provider];
        return uint256(theirs.active) + theirs.unbonding;
    }

    function _proposed(bytes32 slashId) private view returns (Slash storage slash) {
        slash = _slashes[slashId];
        require(slash.status == SlashStatus.Proposed, SlashNotProposed(slashId, slash.status));
    }

    function _checkUsable(address account) private view {
        require(account != address(0) && account != address(this), StakingInvalidAddress(account));
    }
}

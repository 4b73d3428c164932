// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {AccessControlDefaultAdminRules} from "@openzeppelin/contracts/access/extensions/AccessControlDefaultAdminRules.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IEscrowLedger} from "./IEscrowLedger.sol";

/**
 * @dev The books: who owns what, and in which of seven pots every token lies.
 *
 * The pots change in {_arrive}, {_move} and {_leave} and nowhere else, so that what is in them together is what came
 * in less what went out. Accounts and credits are the details of two of them.
 */
abstract contract EscrowLedger is
    IEscrowLedger,
    AccessControlDefaultAdminRules,
    Pausable,
    ReentrancyGuardTransient,
    EIP712
{
    using SafeCast for uint256;
    using SafeERC20 for IERC20;

    bytes32 public constant SETTLER_ROLE = keccak256("SETTLER_ROLE");
    bytes32 public constant PAUSER_ROLE = keccak256("PAUSER_ROLE");
    bytes32 public constant TREASURER_ROLE = keccak256("TREASURER_ROLE");

    /// @notice The smallest amount that the ledger off chain can express, in wei of a token with 18 decimals.
    uint256 public constant UNIT = 1e9;
    uint16 public constant MAX_FEE_BPS = 3000;
    uint256 public constant MAX_PROVIDERS = 100;

    uint16 private constant BPS = 10_000;

    /// @dev What is in one pot belongs to the same kind of owner. Two share a slot, in the order of this list.
    enum Pot {
        Deposits,
        Escrows,
        Credits,
        Fees,
        Channels,
        Pool,
        Reserved
    }

    /// @dev One slot. 104 bits hold twenty trillion tokens of 18 decimals.
    struct Account {
        uint104 deposit;
        uint104 allowance;
        uint40 epoch;
    }

    /// @dev One slot. `released` is of the UTC day `day`, and of no other.
    struct Limits {
        uint104 capPerDay;
        uint104 released;
        uint32 day;
        uint16 feeBps;
    }

    /// @notice The token that everything here is denominated in.
    IERC20 public immutable token;

    mapping(address user => Account) private _accounts;
    mapping(address provider => uint256) private _credits;
    uint128[7] private _pots;
    Limits private _limits;

    constructor(
        IERC20 token_,
        address settler,
        address pauser,
        address treasurer,
        uint16 feeBps_,
        uint256 releaseCapPerDay_
    ) {
        _checkUsable(address(token_));
        _checkUsable(settler);
        _checkUsable(pauser);
        _checkUsable(treasurer);
        token = token_;
        _grantRole(SETTLER_ROLE, settler);
        _grantRole(PAUSER_ROLE, pauser);
        _grantRole(TREASURER_ROLE, treasurer);
        _setFeeBps(feeBps_);
        _setReleaseCapPerDay(releaseCapPerDay_);
    }

    // ---- money in

    /// @inheritdoc IEscrowLedger
    function deposit(uint256 amount) external whenNotPaused nonReentrant {
        _deposit(msg.sender, msg.sender, amount);
    }

    /// @inheritdoc IEscrowLedger
    function depositFor(address user, uint256 amount) external whenNotPaused nonReentrant {
        _checkUsable(user);
        _deposit(user, msg.sender, amount);
    }

    /// @inheritdoc IEscrowLedger
    function depositWithPermit(
        address owner,
        uint256 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external whenNotPaused nonReentrant {
        // A permit that fails may have been submitted before us; whether the approval stands, the transfer will tell.
        try IERC20Permit(address(token)).permit(owner, address(this), amount, deadline, v, r, s) {} catch {}
        _deposit(owner, owner, amount);
    }

    /// @inheritdoc IEscrowLedger
    function setSpendingAllowance(uint256 amount) external {
        Account storage account = _accounts[msg.sender];
        account.allowance = Math.min(amount, type(uint104).max).toUint104();
        ++account.epoch;
        emit SpendingAllowanceSet(msg.sender, account.allowance);
    }

    // ---- money out

    /// @inheritdoc IEscrowLedger
    function withdrawDeposit(uint256 amount) external nonReentrant {
        require(amount != 0, EscrowZeroAmount());
        _debit(msg.sender, amount);
        _leave(Pot.Deposits, amount);
        emit DepositWithdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IEscrowLedger
    function withdraw(address to) external nonReentrant {
        _checkUsable(to);
        uint256 amount = _credits[msg.sender];
        require(amount != 0, EscrowNoCredit(msg.sender));
        _credits[msg.sender] = 0;
        _leave(Pot.Credits, amount);
        emit CreditWithdrawn(msg.sender, to, amount);
        token.safeTransfer(to, amount);
    }

    /// @inheritdoc IEscrowLedger
    function withdrawFees(address to, uint256 amount) external onlyRole(TREASURER_ROLE) nonReentrant {
        _checkUsable(to);
        require(amount != 0, EscrowZeroAmount());
        uint256 available = _inPot(Pot.Fees);
        require(amount <= available, EscrowInsufficientFees(available, amount));
        _leave(Pot.Fees, amount);
        emit FeesWithdrawn(to, amount);
        token.safeTransfer(to, amount);
    }

    // ---- administration

    /// @inheritdoc IEscrowLedger
    function setFeeBps(uint16 newFeeBps) external onlyRole(TREASURER_ROLE) {
        _setFeeBps(newFeeBps);
    }

    /// @inheritdoc IEscrowLedger
    function setReleaseCapPerDay(uint256 newCap) external onlyRole(DEFAULT_ADMIN_ROLE) {
        _setReleaseCapPerDay(newCap);
    }

    /// @inheritdoc IEscrowLedger
    function pause() external onlyRole(PAUSER_ROLE) {
        _pause();
    }

    /// @inheritdoc IEscrowLedger
    function unpause() external onlyRole(PAUSER_ROLE) {
        _unpause();
    }

    // ---- views

    /// @inheritdoc IEscrowLedger
    function depositOf(address user) external view returns (uint256) {
        return _accounts[user].deposit;
    }

    /// @inheritdoc IEscrowLedger
    function spendingAllowance(address user) external view returns (uint256) {
        return _accounts[user].allowance;
    }

    /// @inheritdoc IEscrowLedger
    function creditOf(address provider) external view returns (uint256) {
        return _credits[provider];
    }

    /// @inheritdoc IEscrowLedger
    function feeBps() public view returns (uint16) {
        return _limits.feeBps;
    }

    /// @inheritdoc IEscrowLedger
    function releaseCapPerDay() external view returns (uint256) {
        return _limits.capPerDay;
    }

    /// @inheritdoc IEscrowLedger
    function releasedToday() external view returns (uint256) {
        return _limits.day == _today() ? _limits.released : 0;
    }

    /// @inheritdoc IEscrowLedger
    function totalDeposits() external view returns (uint256) {
        return _inPot(Pot.Deposits);
    }

    /// @inheritdoc IEscrowLedger
    function totalEscrowed() external view returns (uint256) {
        return _inPot(Pot.Escrows);
    }

    /// @inheritdoc IEscrowLedger
    function totalInChannels() external view returns (uint256) {
        return _inPot(Pot.Channels);
    }

    /// @inheritdoc IEscrowLedger
    function poolBalance() external view returns (uint256) {
        return _inPot(Pot.Pool);
    }

    /// @inheritdoc IEscrowLedger
    function totalReserved() external view returns (uint256) {
        return _inPot(Pot.Reserved);
    }

    /// @inheritdoc IEscrowLedger
    function totalCredits() external view returns (uint256) {
        return _inPot(Pot.Credits);
    }

    /// @inheritdoc IEscrowLedger
    function feesAccrued() external view returns (uint256) {
        return _inPot(Pot.Fees);
    }

    /// @inheritdoc IEscrowLedger
    function feeOn(uint256 total, uint16 feeBps_) public pure returns (uint256) {
        require(feeBps_ <= MAX_FEE_BPS, EscrowFeeTooHigh(feeBps_, MAX_FEE_BPS));
        uint256 fee = (total * feeBps_) / (BPS - feeBps_);
        return fee - (fee % UNIT);
    }

    // ---- pots

    function _arrive(Pot pot, uint256 amount) private {
        _pots[uint8(pot)] += amount.toUint128();
    }

    function _leave(Pot pot, uint256 amount) private {
        _pots[uint8(pot)] -= amount.toUint128();
    }

    function _move(Pot from, Pot to, uint256 amount) internal {
        if (amount == 0) return;
        _leave(from, amount);
        _arrive(to, amount);
    }

    function _inPot(Pot pot) internal view returns (uint256) {
        return _pots[uint8(pot)];
    }

    // ---- accounts: whoever calls these moves the same amount between the pots

    function _debit(address user, uint256 amount) internal {
        Account storage account = _accounts[user];
        uint256 available = account.deposit;
        require(amount <= available, EscrowInsufficientDeposit(user, available, amount));
        account.deposit = (available - amount).toUint104();
    }

    /// @return epoch which consent of the user was used
    function _debitWithAllowance(address user, uint256 amount) internal returns (uint40 epoch) {
        Account memory account = _accounts[user];
        require(amount <= account.allowance, EscrowInsufficientAllowance(user, account.allowance, amount));
        require(amount <= account.deposit, EscrowInsufficientDeposit(user, account.deposit, amount));
        account.allowance -= amount.toUint104();
        account.deposit -= amount.toUint104();
        _accounts[user] = account;
        return account.epoch;
    }

    function _creditUser(address user, uint256 amount) internal {
        _accounts[user].deposit += amount.toUint104();
    }

    /// @dev Consent that has been set anew must not grow by what an earlier one left over: it may be a withdrawal.
    function _restoreAllowance(address user, uint40 epoch, uint256 amount) internal returns (bool) {
        Account storage account = _accounts[user];
        if (epoch == 0 || epoch != account.epoch) return false;
        account.allowance += amount.toUint104();
        return true;
    }

    function _creditProvider(address provider, uint256 amount) internal {
        _checkUsable(provider);
        require(amount != 0, EscrowZeroAmount());
        _credits[provider] += amount;
    }

    function _creditProviders(address[] calldata providers, uint256[] calldata amounts) internal returns (uint256 total) {
        uint256 count = providers.length;
        require(count != 0 && count <= MAX_PROVIDERS, EscrowProviderCountOutOfRange(count, MAX_PROVIDERS));
        _checkSameLength(count, amounts.length);
        for (uint256 i = 0; i < count; ++i) {
            uint256 amount = amounts[i];
            _creditProvider(providers[i], amount);
            total += amount;
        }
    }

    // ---- small rules

    function _countTowardsCap(uint256 amount) internal {
        Limits memory limits = _limits;
        uint32 today = _today();
        uint256 already = limits.day == today ? limits.released : 0;
        require(already + amount <= limits.capPerDay, EscrowReleaseCapExceeded(limits.capPerDay, already, amount));
        limits.released = (already + amount).toUint104();
        limits.day = today;
        _limits = limits;
    }

    function _checkUsable(address account) internal view {
        require(account != address(0) && account != address(this), EscrowInvalidAddress(account));
    }

    function _checkSameLength(uint256 accounts, uint256 amounts) internal pure {
        require(accounts == amounts, EscrowLengthMismatch(accounts, amounts));
    }

    function _deposit(address user, address payer, uint256 amount) private {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(payer, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - before;
        require(received != 0, EscrowZeroAmount());
        _creditUser(user, received);
        _arrive(Pot.Deposits, received);
        emit Deposited(user, payer, received);
    }

    function _setFeeBps(uint16 newFeeBps) private {
        require(newFeeBps <= MAX_FEE_BPS, EscrowFeeTooHigh(newFeeBps, MAX_FEE_BPS));
        _limits.feeBps = newFeeBps;
        emit FeeBpsSet(newFeeBps);
    }

    function _setReleaseCapPerDay(uint256 newCap) private {
        _limits.capPerDay = newCap.toUint104();
        emit ReleaseCapSet(newCap);
    }

    function _today() private view returns (uint32) {
        return (block.timestamp / 1 days).toUint32();
    }
}

// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {AccessControlDefaultAdminRules} from "@openzeppelin/contracts/access/extensions/AccessControlDefaultAdminRules.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IInferenceEscrow} from "./IInferenceEscrow.sol";

/**
 * @title InferenceEscrow
 * @notice See {IInferenceEscrow} for what each function promises.
 *
 * One token, fixed at deployment; no proxy. Every token held here is counted in exactly one of four totals (deposits,
 * open escrows, credits, fees), and a function moves an amount from one of them to another, in or out. Tokens that
 * are sent here without a call belong to nobody and stay.
 *
 * IMPORTANT: Not for tokens whose balances change by themselves.
 */
contract InferenceEscrow is
    IInferenceEscrow,
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

    bytes32 public constant ESCROW_INTENT_TYPEHASH = keccak256(
        "EscrowIntent(address user,bytes32 requestId,uint256 maxAmount,uint32 lockSeconds,uint16 maxFeeBps,uint256 nonce,uint64 validUntil)"
    );

    /// @notice The smallest amount that the ledger off chain can express, in wei of a token with 18 decimals.
    uint256 public constant UNIT = 1e9;
    uint16 public constant MAX_FEE_BPS = 3000;
    uint32 public constant MIN_LOCK = 5 minutes;
    uint32 public constant DEFAULT_LOCK = 30 minutes;
    uint32 public constant MAX_LOCK = 24 hours;
    uint256 public constant MAX_PROVIDERS = 100;

    uint16 private constant BPS = 10_000;

    struct SpendingAllowance {
        uint256 amount;
        uint40 epoch;
    }

    /// @dev Two slots. Nothing overflows: together they are never more than the tokens held, checked on the way in.
    struct Totals {
        uint128 deposits;
        uint128 escrowed;
        uint128 credits;
        uint128 fees;
    }

    /// @notice The token that everything here is denominated in.
    IERC20 public immutable token;

    mapping(address user => uint256) private _deposits;
    mapping(address user => SpendingAllowance) private _allowances;
    mapping(address user => mapping(uint256 nonce => bool)) private _usedNonces;
    mapping(bytes32 escrowId => Escrow) private _escrows;
    mapping(address provider => uint256) private _credits;
    mapping(uint256 day => uint256) private _releasedOn;
    Totals private _totals;
    uint256 private _releaseCapPerDay;
    uint16 private _feeBps;

    constructor(
        IERC20 token_,
        uint48 adminDelay,
        address admin,
        address settler,
        address pauser,
        address treasurer,
        uint16 feeBps_,
        uint256 releaseCapPerDay_
    ) AccessControlDefaultAdminRules(adminDelay, admin) EIP712("Far Mesh Escrow", "1") {
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

    // ---- deposits

    /// @inheritdoc IInferenceEscrow
    function deposit(uint256 amount) external whenNotPaused nonReentrant {
        _deposit(msg.sender, msg.sender, amount);
    }

    /// @inheritdoc IInferenceEscrow
    function depositFor(address user, uint256 amount) external whenNotPaused nonReentrant {
        _checkUsable(user);
        _deposit(user, msg.sender, amount);
    }

    /// @inheritdoc IInferenceEscrow
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

    /// @inheritdoc IInferenceEscrow
    function withdrawDeposit(uint256 amount) external nonReentrant {
        require(amount != 0, EscrowZeroAmount());
        _takeDeposit(msg.sender, amount);
        emit DepositWithdrawn(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IInferenceEscrow
    function setSpendingAllowance(uint256 amount) external {
        SpendingAllowance storage allowance = _allowances[msg.sender];
        allowance.amount = amount;
        ++allowance.epoch;
        emit SpendingAllowanceSet(msg.sender, amount);
    }

    // ---- creating escrows

    /// @inheritdoc IInferenceEscrow
    function createEscrow(
        bytes32 requestId,
        uint256 amount
    ) external whenNotPaused nonReentrant returns (bytes32 escrowId) {
        return _createEscrow(msg.sender, requestId, amount, DEFAULT_LOCK, 0);
    }

    /// @inheritdoc IInferenceEscrow
    function createEscrowFor(
        EscrowIntent calldata intent,
        bytes calldata signature
    ) external whenNotPaused nonReentrant returns (bytes32 escrowId) {
        require(block.timestamp <= intent.validUntil, EscrowIntentExpired(intent.validUntil));
        require(_feeBps <= intent.maxFeeBps, EscrowFeeTooHigh(_feeBps, intent.maxFeeBps));
        _useNonce(intent.user, intent.nonce);
        emit NonceUsed(intent.user, intent.nonce);
        require(
            SignatureChecker.isValidSignatureNowCalldata(intent.user, _digestOf(intent), signature),
            EscrowInvalidSignature(intent.user)
        );
        return _createEscrow(intent.user, intent.requestId, intent.maxAmount, intent.lockSeconds, 0);
    }

    /// @inheritdoc IInferenceEscrow
    function createEscrowWithAllowance(
        address user,
        bytes32 requestId,
        uint256 amount,
        uint32 lockSeconds
    ) external onlyRole(SETTLER_ROLE) whenNotPaused nonReentrant returns (bytes32 escrowId) {
        SpendingAllowance storage allowance = _allowances[user];
        uint256 available = allowance.amount;
        require(amount <= available, EscrowInsufficientAllowance(user, available, amount));
        allowance.amount = available - amount;
        escrowId = _createEscrow(user, requestId, amount, lockSeconds, allowance.epoch);
        emit SpendingAllowanceSpent(user, escrowId, amount);
    }

    /// @inheritdoc IInferenceEscrow
    function cancelNonce(uint256 nonce) external {
        _useNonce(msg.sender, nonce);
        emit NonceCancelled(msg.sender, nonce);
    }

    // ---- closing escrows

    /// @inheritdoc IInferenceEscrow
    function releaseMultiple(
        bytes32 escrowId,
        address[] calldata providers,
        uint256[] calldata amounts
    ) external onlyRole(SETTLER_ROLE) whenNotPaused nonReentrant {
        _release(escrowId, providers, amounts);
    }

    /// @inheritdoc IInferenceEscrow
    function releaseBatch(Release[] calldata releases) external onlyRole(SETTLER_ROLE) whenNotPaused nonReentrant {
        for (uint256 i = 0; i < releases.length; ++i) {
            _release(releases[i].escrowId, releases[i].providers, releases[i].amounts);
        }
    }

    /// @inheritdoc IInferenceEscrow
    function cancel(bytes32 escrowId) external nonReentrant {
        Escrow storage escrow = _openEscrow(escrowId);
        _checkMayCancel(escrowId, escrow);
        uint256 refund = escrow.amount;
        escrow.status = EscrowStatus.Cancelled;
        _totals.escrowed -= escrow.amount;
        _refund(escrowId, escrow, refund);
        emit EscrowCancelled(escrowId, refund);
    }

    // ---- money out

    /// @inheritdoc IInferenceEscrow
    function withdraw(address to) external nonReentrant {
        _checkUsable(to);
        uint256 amount = _credits[msg.sender];
        require(amount != 0, EscrowNoCredit(msg.sender));
        _credits[msg.sender] = 0;
        _totals.credits -= amount.toUint128();
        emit CreditWithdrawn(msg.sender, to, amount);
        token.safeTransfer(to, amount);
    }

    /// @inheritdoc IInferenceEscrow
    function withdrawFees(address to, uint256 amount) external onlyRole(TREASURER_ROLE) nonReentrant {
        _checkUsable(to);
        require(amount != 0, EscrowZeroAmount());
        uint256 available = _totals.fees;
        require(amount <= available, EscrowInsufficientFees(available, amount));
        _totals.fees = (available - amount).toUint128();
        emit FeesWithdrawn(to, amount);
        token.safeTransfer(to, amount);
    }

    // ---- administration

    /// @inheritdoc IInferenceEscrow
    function setFeeBps(uint16 newFeeBps) external onlyRole(TREASURER_ROLE) {
        _setFeeBps(newFeeBps);
    }

    /// @inheritdoc IInferenceEscrow
    function setReleaseCapPerDay(uint256 newCap) external onlyRole(DEFAULT_ADMIN_ROLE) {
        _setReleaseCapPerDay(newCap);
    }

    /// @inheritdoc IInferenceEscrow
    function pause() external onlyRole(PAUSER_ROLE) {
        _pause();
    }

    /// @inheritdoc IInferenceEscrow
    function unpause() external onlyRole(PAUSER_ROLE) {
        _unpause();
    }

    // ---- views

    /// @inheritdoc IInferenceEscrow
    function escrowOf(bytes32 escrowId) external view returns (Escrow memory) {
        return _escrows[escrowId];
    }

    /// @inheritdoc IInferenceEscrow
    function depositOf(address user) external view returns (uint256) {
        return _deposits[user];
    }

    /// @inheritdoc IInferenceEscrow
    function spendingAllowance(address user) external view returns (uint256) {
        return _allowances[user].amount;
    }

    /// @inheritdoc IInferenceEscrow
    function isNonceUsed(address user, uint256 nonce) external view returns (bool) {
        return _usedNonces[user][nonce];
    }

    /// @inheritdoc IInferenceEscrow
    function creditOf(address provider) external view returns (uint256) {
        return _credits[provider];
    }

    /// @inheritdoc IInferenceEscrow
    function feeBps() external view returns (uint16) {
        return _feeBps;
    }

    /// @inheritdoc IInferenceEscrow
    function releaseCapPerDay() external view returns (uint256) {
        return _releaseCapPerDay;
    }

    /// @inheritdoc IInferenceEscrow
    function releasedToday() external view returns (uint256) {
        return _releasedOn[_today()];
    }

    /// @inheritdoc IInferenceEscrow
    function totalDeposits() external view returns (uint256) {
        return _totals.deposits;
    }

    /// @inheritdoc IInferenceEscrow
    function totalEscrowed() external view returns (uint256) {
        return _totals.escrowed;
    }

    /// @inheritdoc IInferenceEscrow
    function totalCredits() external view returns (uint256) {
        return _totals.credits;
    }

    /// @inheritdoc IInferenceEscrow
    function feesAccrued() external view returns (uint256) {
        return _totals.fees;
    }

    /// @inheritdoc IInferenceEscrow
    function escrowIdOf(address user, bytes32 requestId) public pure returns (bytes32) {
        return keccak256(abi.encode(user, requestId));
    }

    /// @inheritdoc IInferenceEscrow
    function feeOn(uint256 total, uint16 feeBps_) public pure returns (uint256) {
        require(feeBps_ <= MAX_FEE_BPS, EscrowFeeTooHigh(feeBps_, MAX_FEE_BPS));
        uint256 fee = (total * feeBps_) / (BPS - feeBps_);
        return fee - (fee % UNIT);
    }

    // ---- how money moves

    function _deposit(address user, address payer, uint256 amount) private {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(payer, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - before;
        require(received != 0, EscrowZeroAmount());
        _totals.deposits += received.toUint128();
        _deposits[user] += received;
        emit Deposited(user, payer, received);
    }

    function _takeDeposit(address user, uint256 amount) private {
        uint256 available = _deposits[user];
        require(amount <= available, EscrowInsufficientDeposit(user, available, amount));
        _deposits[user] = available - amount;
        _totals.deposits -= amount.toUint128();
    }

    function _createEscrow(
        address user,
        bytes32 requestId,
        uint256 amount,
        uint32 lockSeconds,
        uint40 allowanceEpoch
    ) private returns (bytes32 escrowId) {
        require(amount != 0, EscrowZeroAmount());
        require(
            lockSeconds >= MIN_LOCK && lockSeconds <= MAX_LOCK,
            EscrowLockOutOfRange(lockSeconds, MIN_LOCK, MAX_LOCK)
        );
        escrowId = escrowIdOf(user, requestId);
        EscrowStatus status = _escrows[escrowId].status;
        require(status == EscrowStatus.None, EscrowAlreadyExists(escrowId, status));

        _takeDeposit(user, amount);
        _totals.escrowed += amount.toUint128();
        uint64 deadline = (block.timestamp + lockSeconds).toUint64();
        _escrows[escrowId] = Escrow({
            user: user,
            amount: amount.toUint128(),
            deadline: deadline,
            feeBps: _feeBps,
            status: EscrowStatus.Open,
            allowanceEpoch: allowanceEpoch
        });
        emit EscrowCreated(escrowId, requestId, user, amount, deadline, _feeBps);
    }

    function _release(bytes32 escrowId, address[] calldata providers, uint256[] calldata amounts) private {
        Escrow storage escrow = _openEscrow(escrowId);
        require(block.timestamp <= escrow.deadline, EscrowDeadlinePassed(escrowId, escrow.deadline));
        uint256 earned = _credit(providers, amounts);
        uint256 fee = feeOn(earned, escrow.feeBps);
        uint256 spent = earned + fee;
        uint256 amount = escrow.amount;
        require(spent <= amount, EscrowAmountExceeded(escrowId, amount, spent));

        _countTowardsCap(spent);
        escrow.status = EscrowStatus.Released;
        _totals.escrowed -= amount.toUint128();
        _totals.credits += earned.toUint128();
        _totals.fees += fee.toUint128();
        _refund(escrowId, escrow, amount - spent);
        emit EscrowReleased(escrowId, providers, amounts, fee, amount - spent);
    }

    function _credit(address[] calldata providers, uint256[] calldata amounts) private returns (uint256 total) {
        uint256 count = providers.length;
        require(count != 0 && count <= MAX_PROVIDERS, EscrowProviderCountOutOfRange(count, MAX_PROVIDERS));
        require(count == amounts.length, EscrowLengthMismatch(count, amounts.length));
        for (uint256 i = 0; i < count; ++i) {
            _checkUsable(providers[i]);
            require(amounts[i] != 0, EscrowZeroAmount());
            _credits[providers[i]] += amounts[i];
            total += amounts[i];
        }
    }

    function _refund(bytes32 escrowId, Escrow storage escrow, uint256 amount) private {
        if (amount == 0) return;
        address user = escrow.user;
        _deposits[user] += amount;
        _totals.deposits += amount.toUint128();
        _restoreAllowance(escrowId, user, escrow.allowanceEpoch, amount);
    }

    /// @dev Consent that has been set anew must not grow by what an earlier one left over: it may be a withdrawal.
    function _restoreAllowance(bytes32 escrowId, address user, uint40 epoch, uint256 amount) private {
        if (epoch == 0 || epoch != _allowances[user].epoch) return;
        _allowances[user].amount += amount;
        emit SpendingAllowanceRestored(user, escrowId, amount);
    }

    function _countTowardsCap(uint256 amount) private {
        uint256 already = _releasedOn[_today()];
        require(already + amount <= _releaseCapPerDay, EscrowReleaseCapExceeded(_releaseCapPerDay, already, amount));
        _releasedOn[_today()] = already + amount;
    }

    // ---- small rules

    function _openEscrow(bytes32 escrowId) private view returns (Escrow storage escrow) {
        escrow = _escrows[escrowId];
        require(escrow.status == EscrowStatus.Open, EscrowNotOpen(escrowId, escrow.status));
    }

    function _checkMayCancel(bytes32 escrowId, Escrow storage escrow) private view {
        bool isUser = msg.sender == escrow.user;
        if (isUser && block.timestamp > escrow.deadline) return;
        if (isUser && !hasRole(SETTLER_ROLE, msg.sender)) {
            revert EscrowDeadlineNotPassed(escrowId, escrow.deadline);
        }
        _checkRole(SETTLER_ROLE);
        _requireNotPaused();
    }

    function _checkUsable(address account) private view {
        require(account != address(0) && account != address(this), EscrowInvalidAddress(account));
    }

    function _useNonce(address user, uint256 nonce) private {
        require(!_usedNonces[user][nonce], EscrowNonceAlreadyUsed(user, nonce));
        _usedNonces[user][nonce] = true;
    }

    function _digestOf(EscrowIntent calldata intent) private view returns (bytes32) {
        // Static fields only, so encoding the struct is encoding its fields in order, as EIP-712 wants it.
        return _hashTypedDataV4(keccak256(abi.encode(ESCROW_INTENT_TYPEHASH, intent)));
    }

    function _setFeeBps(uint16 newFeeBps) private {
        require(newFeeBps <= MAX_FEE_BPS, EscrowFeeTooHigh(newFeeBps, MAX_FEE_BPS));
        _feeBps = newFeeBps;
        emit FeeBpsSet(newFeeBps);
    }

    function _setReleaseCapPerDay(uint256 newCap) private {
        _releaseCapPerDay = newCap;
        emit ReleaseCapSet(newCap);
    }

    function _today() private view returns (uint256) {
        return block.timestamp / 1 days;
    }
}

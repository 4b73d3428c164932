// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {EscrowLedger} from "./EscrowLedger.sol";
import {IRequestEscrows} from "./IRequestEscrows.sol";

/// @dev See {IRequestEscrows} for what each function promises.
abstract contract RequestEscrows is EscrowLedger, IRequestEscrows {
    using SafeCast for uint256;

    bytes32 public constant ESCROW_INTENT_TYPEHASH = keccak256(
        "EscrowIntent(address user,bytes32 requestId,uint256 maxAmount,uint32 lockSeconds,uint16 maxFeeBps,uint256 nonce,uint64 validUntil)"
    );

    uint32 public constant MIN_LOCK = 5 minutes;
    uint32 public constant DEFAULT_LOCK = 30 minutes;
    uint32 public constant MAX_LOCK = 24 hours;

    mapping(bytes32 escrowId => Escrow) private _escrows;
    mapping(address user => mapping(uint256 nonce => bool)) private _usedNonces;

    // ---- creating

    /// @inheritdoc IRequestEscrows
    function createEscrow(
        bytes32 requestId,
        uint256 amount
    ) external whenNotPaused nonReentrant returns (bytes32 escrowId) {
        escrowId = _newEscrow(msg.sender, requestId, amount, DEFAULT_LOCK);
        _debit(msg.sender, amount);
        _createEscrow(escrowId, msg.sender, requestId, amount, DEFAULT_LOCK, 0);
    }

    /// @inheritdoc IRequestEscrows
    function createEscrowFor(
        EscrowIntent calldata intent,
        bytes calldata signature
    ) external whenNotPaused nonReentrant returns (bytes32 escrowId) {
        require(block.timestamp <= intent.validUntil, EscrowIntentExpired(intent.validUntil));
        require(feeBps() <= intent.maxFeeBps, EscrowFeeTooHigh(feeBps(), intent.maxFeeBps));
        _useNonce(intent.user, intent.nonce);
        emit NonceUsed(intent.user, intent.nonce);
        require(
            SignatureChecker.isValidSignatureNowCalldata(intent.user, _digestOf(intent), signature),
            EscrowInvalidSignature(intent.user)
        );
        escrowId = _newEscrow(intent.user, intent.requestId, intent.maxAmount, intent.lockSeconds);
        _debit(intent.user, intent.maxAmount);
        _createEscrow(escrowId, intent.user, intent.requestId, intent.maxAmount, intent.lockSeconds, 0);
    }

    /// @inheritdoc IRequestEscrows
    function createEscrowWithAllowance(
        address user,
        bytes32 requestId,
        uint256 amount,
        uint32 lockSeconds
    ) external onlyRole(SETTLER_ROLE) whenNotPaused nonReentrant returns (bytes32 escrowId) {
        escrowId = _newEscrow(user, requestId, amount, lockSeconds);
        uint40 epoch = _debitWithAllowance(user, amount);
        _createEscrow(escrowId, user, requestId, amount, lockSeconds, epoch);
        emit SpendingAllowanceSpent(user, escrowId, amount);
    }

    /// @inheritdoc IRequestEscrows
    function cancelNonce(uint256 nonce) external {
        _useNonce(msg.sender, nonce);
        emit NonceCancelled(msg.sender, nonce);
    }

    // ---- closing

    /// @inheritdoc IRequestEscrows
    function releaseMultiple(
        bytes32 escrowId,
        address[] calldata providers,
        uint256[] calldata amounts
    ) external onlyRole(SETTLER_ROLE) whenNotPaused nonReentrant {
        _release(escrowId, providers, amounts);
    }

    /// @inheritdoc IRequestEscrows
    function releaseBatch(Release[] calldata releases) external onlyRole(SETTLER_ROLE) whenNotPaused nonReentrant {
        for (uint256 i = 0; i < releases.length; ++i) {
            _release(releases[i].escrowId, releases[i].providers, releases[i].amounts);
        }
    }

    /// @inheritdoc IRequestEscrows
    function cancel(bytes32 escrowId) external nonReentrant {
        Escrow storage escrow = _openEscrow(escrowId);
        _checkMayCancel(escrowId, escrow);
        uint256 refund = escrow.amount;
        escrow.status = EscrowStatus.Cancelled;
        _refund(escrowId, escrow, refund);
        emit EscrowCancelled(escrowId, refund);
    }

    // ---- views

    /// @inheritdoc IRequestEscrows
    function escrowOf(bytes32 escrowId) external view returns (Escrow memory) {
        return _escrows[escrowId];
    }

    /// @inheritdoc IRequestEscrows
    function isNonceUsed(address user, uint256 nonce) external view returns (bool) {
        return _usedNonces[user][nonce];
    }

    /// @inheritdoc IRequestEscrows
    function escrowIdOf(address user, bytes32 requestId) public pure returns (bytes32) {
        return keccak256(abi.encode(user, requestId));
    }

    // ---- how money moves

    function _createEscrow(
        bytes32 escrowId,
        address user,
        bytes32 requestId,
        uint256 amount,
        uint32 lockSeconds,
        uint40 allowanceEpoch
    ) private {
        _move(Pot.Deposits, Pot.Escrows, amount);
        uint64 deadline = (block.timestamp + lockSeconds).toUint64();
        uint16 rate = feeBps();
        _escrows[escrowId] = Escrow({
            user: user,
            amount: amount.toUint128(),
            deadline: deadline,
            feeBps: rate,
            status: EscrowStatus.Open,
            allowanceEpoch: allowanceEpoch
        });
        emit EscrowCreated(escrowId, requestId, user, amount, deadline, rate);
    }

    function _release(bytes32 escrowId, address[] calldata providers, uint256[] calldata amounts) private {
        Escrow storage escrow = _openEscrow(escrowId);
        require(block.timestamp <= escrow.deadline, EscrowDeadlinePassed(escrowId, escrow.deadline));
        uint256 earned = _creditProviders(providers, amounts);
        uint256 fee = feeOn(earned, escrow.feeBps);
        uint256 spent = earned + fee;
        uint256 amount = escrow.amount;
        require(spent <= amount, EscrowAmountExceeded(escrowId, amount, spent));

        _countTowardsCap(spent);
        escrow.status = EscrowStatus.Released;
        _move(Pot.Escrows, Pot.Credits, earned);
        _move(Pot.Escrows, Pot.Fees, fee);
        _refund(escrowId, escrow, amount - spent);
        emit EscrowReleased(escrowId, providers, amounts, fee, amount - spent);
    }

    function _refund(bytes32 escrowId, Escrow storage escrow, uint256 amount) private {
        if (amount == 0) return;
        address user = escrow.user;
        _move(Pot.Escrows, Pot.Deposits, amount);
        _creditUser(user, amount);
        if (_restoreAllowance(user, escrow.allowanceEpoch, amount)) {
            emit SpendingAllowanceRestored(user, escrowId, amount);
        }
    }

    // ---- small rules

    function _newEscrow(
        address user,
        bytes32 requestId,
        uint256 amount,
        uint32 lockSeconds
    ) private view returns (bytes32 escrowId) {
        require(amount != 0, EscrowZeroAmount());
        require(
            lockSeconds >= MIN_LOCK && lockSeconds <= MAX_LOCK,
            EscrowLockOutOfRange(lockSeconds, MIN_LOCK, MAX_LOCK)
        );
        escrowId = escrowIdOf(user, requestId);
        EscrowStatus status = _escrows[escrowId].status;
        require(status == EscrowStatus.None, EscrowAlreadyExists(escrowId, status));
    }

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

    function _useNonce(address user, uint256 nonce) private {
        require(!_usedNonces[user][nonce], EscrowNonceAlreadyUsed(user, nonce));
        _usedNonces[user][nonce] = true;
    }

    function _digestOf(EscrowIntent calldata intent) private view returns (bytes32) {
        // Static fields only, so encoding the struct is encoding its fields in order, as EIP-712 wants it.
        return _hashTypedDataV4(keccak256(abi.encode(ESCROW_INTENT_TYPEHASH, intent)));
    }
}

// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";
import {EscrowLedger} from "./EscrowLedger.sol";
import {IBatchSettlement} from "./IBatchSettlement.sol";

/// @dev See {IBatchSettlement} for what each function promises.
abstract contract BatchSettlement is EscrowLedger, IBatchSettlement {
    using BitMaps for BitMaps.BitMap;
    using SafeCast for uint256;

    /// @notice How long a committed root can be checked, and revoked, before anything is claimed from it.
    uint256 public constant PAYOUT_DELAY = 1 days;

    BitMaps.BitMap private _settled;
    mapping(uint256 epoch => PayoutRoot) private _payoutRoots;
    mapping(address provider => uint256) private _claimed;

    // ---- batches

    /// @inheritdoc IBatchSettlement
    function settleBatch(
        uint256 batchId,
        bytes32 detailRoot,
        Charges calldata charges,
        address[] calldata providers,
        uint256[] calldata amounts,
        uint256 fee
    ) external onlyRole(SETTLER_ROLE) whenNotPaused nonReentrant {
        _useBatch(batchId);
        uint256 earned = _creditProviders(providers, amounts);
        _fund(charges, Pot.Credits, earned, fee);
        emit BatchSettled(batchId, detailRoot, charges, providers, amounts, fee);
    }

    /// @inheritdoc IBatchSettlement
    function refundFromPool(
        uint256 batchId,
        bytes32 detailRoot,
        address[] calldata users,
        uint256[] calldata amounts
    ) external onlyRole(SETTLER_ROLE) whenNotPaused nonReentrant {
        _useBatch(batchId);
        _checkSameLength(users.length, amounts.length);
        uint256 total = 0;
        for (uint256 i = 0; i < users.length; ++i) {
            _checkUsable(users[i]);
            _creditUser(users[i], amounts[i]);
            total += amounts[i];
        }
        _checkPool(total);
        _countTowardsCap(total);
        _move(Pot.Pool, Pot.Deposits, total);
        emit PoolRefunded(batchId, detailRoot, users, amounts);
    }

    // ---- payout roots

    /// @inheritdoc IBatchSettlement
    function commitPayoutRoot(
        uint256 epoch,
        bytes32 root,
        uint256 total,
        uint256 fee,
        Charges calldata charges
    ) external onlyRole(SETTLER_ROLE) whenNotPaused nonReentrant {
        require(root != bytes32(0), PayoutRootEmpty());
        require(total != 0, EscrowZeroAmount());
        require(_payoutRoots[epoch].root == bytes32(0), PayoutEpochAlreadyUsed(epoch));
        _fund(charges, Pot.Reserved, total, fee);
        uint64 claimableAt = (block.timestamp + PAYOUT_DELAY).toUint64();
        _payoutRoots[epoch] = PayoutRoot({root: root, total: total.toUint128(), claimableAt: claimableAt});
        emit PayoutRootCommitted(epoch, root, charges, total, fee, claimableAt);
    }

    /// @inheritdoc IBatchSettlement
    function revokePayoutRoot(uint256 epoch) external onlyRole(PAUSER_ROLE) nonReentrant {
        PayoutRoot storage committed = _payoutRoot(epoch);
        uint64 claimableAt = committed.claimableAt;
        require(block.timestamp < claimableAt, PayoutNotRevocable(epoch, claimableAt));
        uint256 total = committed.total;
        committed.claimableAt = 0;
        _move(Pot.Reserved, Pot.Pool, total);
        emit PayoutRootRevoked(epoch, total);
    }

    /// @inheritdoc IBatchSettlement
    function claimPayout(
        uint256 epoch,
        address provider,
        uint256 cumulative,
        bytes32[] calldata proof
    ) external nonReentrant {
        PayoutRoot storage committed = _payoutRoot(epoch);
        require(block.timestamp >= committed.claimableAt, PayoutNotClaimable(epoch, committed.claimableAt));
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(provider, cumulative))));
        require(
            MerkleProof.verifyCalldata(proof, committed.root, leaf),
            PayoutProofInvalid(epoch, provider, cumulative)
        );
        uint256 claimed = _claimed[provider];
        require(cumulative > claimed, PayoutNothingToClaim(provider, claimed, cumulative));
        uint256 amount = cumulative - claimed;
        uint256 available = _inPot(Pot.Reserved);
        require(amount <= available, EscrowInsufficientReserve(available, amount));

        _claimed[provider] = cumulative;
        _creditProvider(provider, amount);
        _move(Pot.Reserved, Pot.Credits, amount);
        emit PayoutClaimed(epoch, provider, amount, cumulative);
    }

    // ---- views

    /// @inheritdoc IBatchSettlement
    function isBatchSettled(uint256 batchId) external view returns (bool) {
        return _settled.get(batchId);
    }

    /// @inheritdoc IBatchSettlement
    function payoutRootOf(uint256 epoch) external view returns (PayoutRoot memory) {
        return _payoutRoots[epoch];
    }

    /// @inheritdoc IBatchSettlement
    function claimedOf(address provider) external view returns (uint256) {
        return _claimed[provider];
    }

    // ---- how money moves

    /// @dev Brings `earned` into a pot and `fee` to the fees: out of what is charged, and what that does not cover out
    /// of the pool.
    function _fund(Charges calldata charges, Pot to, uint256 earned, uint256 fee) private {
        uint256 maximum = feeOn(earned, feeBps());
        require(fee <= maximum, EscrowFeeTooHigh(fee, maximum));
        uint256 needed = earned + fee;
        _countTowardsCap(needed);
        uint256 charged = _charge(charges);
        require(charged <= needed, BatchOvercharged(charged, needed));
        _checkPool(needed - charged);

        uint256 earnedCharged = Math.min(earned, charged);
        _move(Pot.Deposits, to, earnedCharged);
        _move(Pot.Pool, to, earned - earnedCharged);
        _move(Pot.Deposits, Pot.Fees, charged - earnedCharged);
        _move(Pot.Pool, Pot.Fees, needed - charged - (earned - earnedCharged));
    }

    function _charge(Charges calldata charges) private returns (uint256 total) {
        address[] calldata users = charges.users;
        uint256[] calldata amounts = charges.amounts;
        uint256 count = users.length;
        _checkSameLength(count, amounts.length);
        for (uint256 i = 0; i < count; ++i) {
            uint256 amount = amounts[i];
            _debitWithAllowance(users[i], amount);
            total += amount;
        }
    }

    // ---- small rules

    function _checkPool(uint256 needed) private view {
        if (needed == 0) return;
        uint256 available = _inPot(Pot.Pool);
        require(needed <= available, EscrowInsufficientPool(available, needed));
    }

    function _useBatch(uint256 batchId) private {
        require(!_settled.get(batchId), BatchAlreadySettled(batchId));
        _settled.set(batchId);
    }

    function _payoutRoot(uint256 epoch) private view returns (PayoutRoot storage committed) {
        committed = _payoutRoots[epoch];
        require(committed.claimableAt != 0, PayoutRootUnknown(epoch));
    }
}

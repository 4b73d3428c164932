// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {EscrowLedger} from "./EscrowLedger.sol";
import {IPaymentChannels} from "./IPaymentChannels.sol";

/// @dev See {IPaymentChannels} for what each function promises.
abstract contract PaymentChannels is EscrowLedger, IPaymentChannels {
    using SafeCast for uint256;

    /// @dev The fields of a voucher in the `batch-settlement` scheme of x402.
    bytes32 public constant VOUCHER_TYPEHASH = keccak256("Voucher(bytes32 channelId,uint128 maxClaimableAmount)");

    uint32 public constant MIN_CLOSE_DELAY = 15 minutes;
    uint32 public constant MAX_CLOSE_DELAY = 30 days;

    mapping(bytes32 channelId => Channel) private _channels;

    // ---- of the user

    /// @inheritdoc IPaymentChannels
    function openChannel(
        bytes32 salt,
        address signer,
        uint256 amount,
        uint32 closeDelay
    ) external whenNotPaused nonReentrant returns (bytes32 channelId) {
        require(amount != 0, EscrowZeroAmount());
        _checkUsable(signer);
        require(
            closeDelay >= MIN_CLOSE_DELAY && closeDelay <= MAX_CLOSE_DELAY,
            ChannelCloseDelayOutOfRange(closeDelay, MIN_CLOSE_DELAY, MAX_CLOSE_DELAY)
        );
        channelId = channelIdOf(msg.sender, salt);
        ChannelStatus status = _channels[channelId].status;
        require(status == ChannelStatus.None, ChannelAlreadyExists(channelId, status));

        _debit(msg.sender, amount);
        _move(Pot.Deposits, Pot.Channels, amount);
        _channels[channelId] = Channel({
            user: msg.sender,
            signer: signer,
            amount: amount.toUint104(),
            redeemed: 0,
            closeDelay: closeDelay,
            closesAt: 0,
            status: ChannelStatus.Open
        });
        emit ChannelOpened(channelId, msg.sender, signer, salt, amount, closeDelay);
    }

    /// @inheritdoc IPaymentChannels
    function topUp(bytes32 channelId, uint256 amount) external whenNotPaused nonReentrant {
        Channel storage channel = _openChannelOfCaller(channelId);
        require(amount != 0, EscrowZeroAmount());
        _debit(msg.sender, amount);
        _move(Pot.Deposits, Pot.Channels, amount);
        channel.amount += amount.toUint104();
        emit ChannelToppedUp(channelId, amount);
    }

    /// @inheritdoc IPaymentChannels
    function startClose(bytes32 channelId) external nonReentrant {
        Channel storage channel = _openChannelOfCaller(channelId);
        uint40 closesAt = (block.timestamp + channel.closeDelay).toUint40();
        channel.closesAt = closesAt;
        channel.status = ChannelStatus.Closing;
        emit ChannelClosing(channelId, closesAt);
    }

    /// @inheritdoc IPaymentChannels
    function finishClose(bytes32 channelId) external nonReentrant {
        Channel storage channel = _channels[channelId];
        require(channel.status == ChannelStatus.Closing, ChannelNotClosing(channelId, channel.status));
        if (block.timestamp <= channel.closesAt) {
            require(hasRole(SETTLER_ROLE, msg.sender), ChannelDeadlineNotPassed(channelId, channel.closesAt));
            _requireNotPaused();
        }
        uint256 refund = channel.amount - channel.redeemed;
        channel.status = ChannelStatus.Closed;
        _move(Pot.Channels, Pot.Deposits, refund);
        _creditUser(channel.user, refund);
        emit ChannelClosed(channelId, refund);
    }

    // ---- of the settler

    /// @inheritdoc IPaymentChannels
    function redeemVouchers(Claim[] calldata claims) external onlyRole(SETTLER_ROLE) whenNotPaused nonReentrant {
        uint256 total = 0;
        for (uint256 i = 0; i < claims.length; ++i) {
            total += _redeem(claims[i]);
        }
        _move(Pot.Channels, Pot.Pool, total);
    }

    // ---- views

    /// @inheritdoc IPaymentChannels
    function channelOf(bytes32 channelId) external view returns (Channel memory) {
        return _channels[channelId];
    }

    /// @inheritdoc IPaymentChannels
    function channelIdOf(address user, bytes32 salt) public pure returns (bytes32) {
        return keccak256(abi.encode(user, salt));
    }

    // ---- how money moves

    function _redeem(Claim calldata claim) private returns (uint256 amount) {
        bytes32 channelId = claim.channelId;
        Channel storage channel = _channels[channelId];
        _checkRedeemable(channelId, channel);
        uint256 redeemed = channel.redeemed;
        uint256 claimed = claim.totalClaimed;
        require(claimed > redeemed, ChannelNothingToRedeem(channelId, redeemed, claimed));
        require(claimed <= channel.amount, ChannelAmountExceeded(channelId, channel.amount, claimed));
        uint256 promised = claim.maxClaimableAmount;
        require(claimed <= promised, ChannelAmountExceeded(channelId, promised, claimed));
        address signer = channel.signer;
        require(
            SignatureChecker.isValidSignatureNowCalldata(signer, _digestOf(channelId, promised), claim.signature),
            EscrowInvalidSignature(signer)
        );
        channel.redeemed = claimed.toUint104();
        emit VoucherRedeemed(channelId, claimed - redeemed, claimed);
        return claimed - redeemed;
    }

    // ---- small rules

    function _openChannelOfCaller(bytes32 channelId) private view returns (Channel storage channel) {
        channel = _channels[channelId];
        require(channel.status == ChannelStatus.Open, ChannelNotOpen(channelId, channel.status));
        require(channel.user == msg.sender, ChannelNotOfCaller(channelId, msg.sender));
    }

    function _checkRedeemable(bytes32 channelId, Channel storage channel) private view {
        ChannelStatus status = channel.status;
        if (status == ChannelStatus.Closing) {
            require(block.timestamp <= channel.closesAt, ChannelDeadlinePassed(channelId, channel.closesAt));
        } else {
            require(status == ChannelStatus.Open, ChannelNotOpen(channelId, status));
        }
    }

    function _digestOf(bytes32 channelId, uint256 maxClaimableAmount) private view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(VOUCHER_TYPEHASH, channelId, maxClaimableAmount)));
    }
}

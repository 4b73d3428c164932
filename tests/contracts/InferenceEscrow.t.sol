// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {FarToken} from "../../contracts/FarToken.sol";
import {IBatchSettlement} from "../../contracts/escrow/IBatchSettlement.sol";
import {IPaymentChannels} from "../../contracts/escrow/IPaymentChannels.sol";
import {IRequestEscrows} from "../../contracts/escrow/IRequestEscrows.sol";
import {InferenceEscrow} from "../../contracts/InferenceEscrow.sol";

/// @dev The few cheat codes used here.
interface Vm {
    function prank(address sender) external;
    function warp(uint256 timestamp) external;
    function assume(bool condition) external pure;
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
}

Vm constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

function bound(uint256 value, uint256 low, uint256 high) pure returns (uint256) {
    return low + (value % (high - low + 1));
}

/// @dev An escrow in which this contract holds every role.
abstract contract EscrowFixture {
    uint256 internal constant SUPPLY = 1e27;
    uint256 internal constant CAP = 1e24;

    FarToken internal token;
    InferenceEscrow internal escrow;

    function _deploy() internal {
        token = new FarToken(address(this), SUPPLY);
        escrow = new InferenceEscrow(
            token,
            1 days,
            address(this),
            address(this),
            address(this),
            address(this),
            2000,
            CAP
        );
    }

    /// @dev A claim with a voucher that `key` signed for `limit`.
    function _claim(
        bytes32 channelId,
        uint256 key,
        uint128 limit,
        uint128 claimed
    ) internal view returns (IPaymentChannels.Claim[] memory claims) {
        bytes32 message = keccak256(abi.encode(escrow.VOUCHER_TYPEHASH(), channelId, limit));
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Far Mesh Escrow"),
                keccak256("1"),
                block.chainid,
                address(escrow)
            )
        );
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, keccak256(abi.encodePacked(hex"1901", domain, message)));
        claims = new IPaymentChannels.Claim[](1);
        claims[0] = IPaymentChannels.Claim(channelId, limit, claimed, abi.encodePacked(r, s, v));
    }

    function _fund(address user, uint256 amount) internal {
        token.approve(address(escrow), amount);
        escrow.depositFor(user, amount);
    }
}

/// @dev Calls the escrow at random, as everybody it knows, and remembers what must hold.
contract Handler is EscrowFixture {
    uint256 private constant USERS = 4;
    uint256 private constant PROVIDERS = 5;

    uint256 private constant SESSION_KEY = 0x5e55;

    bytes32[] private _escrowIds;
    bytes32[] private _channelIds;
    uint256 private _epochs;
    mapping(uint256 epoch => address) private _payee;
    mapping(uint256 epoch => uint256) private _promised;
    mapping(address provider => uint256) private _rooted;
    uint256 public donated;
    /// @dev The first promise that was broken, if any.
    string public broken;
    /// @dev What a user consented to with the latest call of `setSpendingAllowance`.
    mapping(address user => uint256) public consented;

    constructor() {
        _deploy();
        for (uint256 i = 0; i < USERS; ++i) {
            _fund(_user(i), 1e21);
            consented[_user(i)] = 1e21;
            vm.prank(_user(i));
            escrow.setSpendingAllowance(1e21);
        }
    }

    // ---- what may happen

    function deposit(uint256 who, uint256 amount) external {
        if (!escrow.paused()) _fund(_user(who), bound(amount, 1, 1e21));
    }

    function withdrawDeposit(uint256 who, uint256 amount) external {
        address user = _user(who);
        uint256 available = escrow.depositOf(user);
        if (available == 0) return;
        vm.prank(user);
        escrow.withdrawDeposit(bound(amount, 1, available));
    }

    function setSpendingAllowance(uint256 who, uint256 amount) external {
        address user = _user(who);
        consented[user] = bound(amount, 0, 1e21);
        vm.prank(user);
        escrow.setSpendingAllowance(consented[user]);
    }

    function createEscrow(uint256 who, uint256 amount) external {
        address user = _user(who);
        uint256 available = escrow.depositOf(user);
        if (available == 0 || escrow.paused()) return;
        vm.prank(user);
        _escrowIds.push(escrow.createEscrow(_freshId(), bound(amount, 1, available)));
    }

    function createEscrowWithAllowance(uint256 who, uint256 amount, uint256 lock) external {
        address user = _user(who);
        uint256 available = _min(escrow.depositOf(user), escrow.spendingAllowance(user));
        if (available == 0 || escrow.paused()) return;
        uint32 lockSeconds = uint32(bound(lock, 5 minutes, 24 hours));
        _escrowIds.push(escrow.createEscrowWithAllowance(user, _freshId(), bound(amount, 1, available), lockSeconds));
    }

    function release(uint256 which, uint256 count, uint256[5] calldata wishes) external {
        if (_escrowIds.length == 0) return;
        bytes32 id = _escrowIds[which % _escrowIds.length];
        IRequestEscrows.Escrow memory locked = escrow.escrowOf(id);
        (address[] memory providers, uint256[] memory amounts, uint256 total) = _wished(
            bound(count, 1, PROVIDERS),
            wishes,
            locked.amount
        );
        uint256 before = escrow.depositOf(locked.user);
        uint256 booked = escrow.totalCredits() + escrow.feesAccrued();
        try escrow.releaseMultiple(id, providers, amounts) {
            uint256 paid = escrow.totalCredits() + escrow.feesAccrued() - booked;
            _promise(locked.status == IRequestEscrows.EscrowStatus.Open, "only an open escrow is released");
            _promise(block.timestamp <= locked.deadline, "nothing is released after the deadline");
            _promise(paid <= locked.amount, "no more is paid than was locked");
            _promise(paid == total + escrow.feeOn(total, locked.feeBps), "providers and fee get what is theirs");
            _promise(escrow.depositOf(locked.user) - before == locked.amount - paid, "the user gets exactly the rest");
        } catch {}
    }

    function cancelAsSettler(uint256 which) external {
        if (_escrowIds.length != 0) _cancel(which, address(this));
    }

    function cancelAsAnybody(uint256 which, uint256 who) external {
        if (_escrowIds.length != 0) _cancel(which, _user(who));
    }

    function openChannel(uint256 who, uint256 amount, uint256 delay) external {
        address user = _user(who);
        uint256 available = escrow.depositOf(user);
        if (available == 0 || escrow.paused()) return;
        bytes32 salt = bytes32(_channelIds.length);
        uint32 closeDelay = uint32(bound(delay, 15 minutes, 6 hours));
        vm.prank(user);
        _channelIds.push(escrow.openChannel(salt, vm.addr(SESSION_KEY), bound(amount, 1, available), closeDelay));
    }

    function topUp(uint256 which, uint256 amount) external {
        if (_channelIds.length == 0 || escrow.paused()) return;
        bytes32 id = _channelIds[which % _channelIds.length];
        IPaymentChannels.Channel memory channel = escrow.channelOf(id);
        uint256 available = escrow.depositOf(channel.user);
        if (available == 0 || channel.status != IPaymentChannels.ChannelStatus.Open) return;
        vm.prank(channel.user);
        escrow.topUp(id, bound(amount, 1, available));
    }

    /// @dev One voucher in eight is signed by somebody else; claims are often stale, and some are too high.
    function redeem(uint256 which, uint128 limit, uint128 claimed, uint256 seed) external {
        if (_channelIds.length == 0) return;
        bytes32 id = _channelIds[which % _channelIds.length];
        IPaymentChannels.Channel memory channel = escrow.channelOf(id);
        limit = uint128(bound(limit, 0, 1 + uint256(channel.amount) + channel.amount / 4));
        claimed = uint128(bound(claimed, 0, 1 + uint256(limit) + limit / 8));
        bool forged = seed % 8 == 0;
        uint256 pool = escrow.poolBalance();
        uint256 deposits = escrow.totalDeposits();
        try escrow.redeemVouchers(_claim(id, forged ? SESSION_KEY + 1 : SESSION_KEY, limit, claimed)) {
            _promise(!forged, "only the signer's voucher is redeemed");
            _promise(claimed <= limit && claimed <= channel.amount, "no more than voucher and channel allow");
            _promise(claimed > channel.redeemed, "a voucher is redeemed once");
            _promise(escrow.poolBalance() == pool + claimed - channel.redeemed, "the pool gets what was earned");
            _promise(escrow.totalDeposits() == deposits, "a voucher touches no deposit");
            _promise(
                channel.status == IPaymentChannels.ChannelStatus.Open || block.timestamp <= channel.closesAt,
                "nothing is redeemed after closing"
            );
        } catch {}
    }

    function startClose(uint256 which) external {
        if (_channelIds.length == 0) return;
        bytes32 id = _channelIds[which % _channelIds.length];
        IPaymentChannels.Channel memory channel = escrow.channelOf(id);
        if (channel.status != IPaymentChannels.ChannelStatus.Open || channel.redeemed == 0) return;
        vm.prank(channel.user);
        escrow.startClose(id);
    }

    function finishClose(uint256 which, uint256 who) external {
        if (_channelIds.length == 0) return;
        bytes32 id = _channelIds[which % _channelIds.length];
        IPaymentChannels.Channel memory channel = escrow.channelOf(id);
        if (channel.status == IPaymentChannels.ChannelStatus.Closing) _mayPass(who, channel.closesAt + 1);
        uint256 before = escrow.depositOf(channel.user);
        bool closing = channel.status == IPaymentChannels.ChannelStatus.Closing;
        bool late = block.timestamp > channel.closesAt;
        vm.prank(_user(who));
        try escrow.finishClose(id) {
            _promise(closing && late, "a channel is closed after its delay");
            _promise(
                escrow.depositOf(channel.user) == before + channel.amount - channel.redeemed,
                "what is left in a channel is its user's"
            );
        } catch {
            _promise(!(closing && late), "nothing stops the closing of a channel after its delay");
        }
    }

    /// @dev Up to two users and two providers; sometimes more than there is, or than users should be charged for.
    function settleBatch(uint256 seed, uint256[4] calldata wishes, uint256 fee) external {
        IBatchSettlement.Charges memory charges = _charges(seed, wishes[0], wishes[1]);
        address[] memory providers = new address[](2);
        uint256[] memory amounts = new uint256[](2);
        for (uint256 i = 0; i < 2; ++i) {
            providers[i] = _provider(wishes[i]);
            amounts[i] = bound(wishes[2 + i], 1, 1 + escrow.poolBalance() / 2);
        }
        uint256 charged = _sum(charges.amounts);
        if (charged > 2 && wishes[2] % 8 != 0) amounts[0] += charged - 2;
        uint256 needed = amounts[0] + amounts[1];
        fee = bound(fee, 0, _min(escrow.feeOn(needed, escrow.feeBps()) + escrow.UNIT(), escrow.poolBalance() / 4));
        needed += fee;
        uint256 before = escrow.totalDeposits() + escrow.poolBalance();
        uint256 booked = escrow.totalCredits() + escrow.feesAccrued();
        uint256 deposits = escrow.totalDeposits();
        try escrow.settleBatch(seed % 64, "", charges, providers, amounts, fee) {
            _promise(escrow.totalDeposits() + escrow.poolBalance() == before - needed, "a batch takes what it pays");
            _promise(escrow.totalCredits() + escrow.feesAccrued() == booked + needed, "a batch pays what it takes");
            _promise(escrow.totalDeposits() == deposits - _sum(charges.amounts), "users pay what they are charged");
            _promise(_sum(charges.amounts) <= needed, "users are not charged for more than is paid");
            _promise(fee <= escrow.feeOn(needed - fee, escrow.feeBps()), "the fee is within its rate");
        } catch {}
    }

    function refundFromPool(uint256 batchId, uint256 who, uint256 amount) external {
        uint256 available = escrow.poolBalance();
        if (available == 0) return;
        address[] memory users = new address[](1);
        uint256[] memory amounts = new uint256[](1);
        (users[0], amounts[0]) = (_user(who), bound(amount, 1, available));
        try escrow.refundFromPool(batchId % 64, "", users, amounts) {} catch {}
    }

    /// @dev The tree has one leaf. One root in four promises more than was set aside for it.
    function commitPayoutRoot(uint256 who, uint256 total, uint256 greed) external {
        uint256 available = escrow.poolBalance();
        if (available == 0) return;
        total = bound(total, 1, available);
        address provider = _provider(who);
        uint256 cumulative = _rooted[provider] + total + (greed % 4 == 0 ? bound(greed, 1, 1e21) : 0);
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(provider, cumulative))));
        IBatchSettlement.Charges memory nobody;
        try escrow.commitPayoutRoot(_epochs, leaf, total, 0, nobody) {
            (_payee[_epochs], _promised[_epochs]) = (provider, cumulative);
            _rooted[provider] = cumulative;
            ++_epochs;
        } catch {}
    }

    function claimPayout(uint256 epoch, uint256 inflate) external {
        if (_epochs == 0) return;
        epoch = epoch % _epochs;
        address provider = _payee[epoch];
        _mayPass(inflate, escrow.payoutRootOf(epoch).claimableAt);
        uint256 cumulative = _promised[epoch] + (inflate % 4 == 0 ? 1 : 0);
        uint256 reserved = escrow.totalReserved();
        uint256 claimed = escrow.claimedOf(provider);
        uint256 credit = escrow.creditOf(provider);
        try escrow.claimPayout(epoch, provider, cumulative, new bytes32[](0)) {
            uint256 amount = cumulative - claimed;
            _promise(cumulative == _promised[epoch], "only what the root says is claimed");
            _promise(amount <= reserved, "no more is claimed than was set aside");
            _promise(escrow.totalReserved() == reserved - amount, "a claim comes out of what was set aside");
            _promise(escrow.creditOf(provider) == credit + amount, "a claim goes to its provider");
            _promise(escrow.payoutRootOf(epoch).claimableAt <= block.timestamp, "a claim waits for its day");
        } catch {}
    }

    function revokePayoutRoot(uint256 epoch, uint256 seed) external {
        if (_epochs == 0 || seed % 4 != 0) return;
        try escrow.revokePayoutRoot(epoch % _epochs) {} catch {}
    }

    function withdraw(uint256 who, uint256 where) external {
        address provider = _provider(who);
        uint256 credit = escrow.creditOf(provider);
        if (credit == 0) return;
        address to = _user(where);
        uint256 before = token.balanceOf(to);
        vm.prank(provider);
        escrow.withdraw(to);
        _promise(token.balanceOf(to) == before + credit, "a provider gets the whole credit");
        _promise(escrow.creditOf(provider) == 0, "a credit is paid once");
    }

    function withdrawFees(uint256 amount) external {
        uint256 available = escrow.feesAccrued();
        if (available != 0) escrow.withdrawFees(address(this), bound(amount, 1, available));
    }

    function setFeeBps(uint256 feeBps) external {
        escrow.setFeeBps(uint16(bound(feeBps, 0, 3000)));
    }

    function togglePause(uint256 seed) external {
        if (escrow.paused()) escrow.unpause();
        else if (seed % 4 == 0) escrow.pause();
    }

    function pass(uint256 duration) external {
        vm.warp(block.timestamp + bound(duration, 1, 2 hours) + (duration % 4 == 0 ? 1 days : 0));
    }

    function donate(uint256 amount) external {
        amount = bound(amount, 1, 1e18);
        donated += amount;
        token.transfer(address(escrow), amount);
    }

    // ---- what can be seen

    function heldAndBooked() external view returns (uint256 held, uint256 booked) {
        held = token.balanceOf(address(escrow));
        booked = escrow.totalDeposits() + escrow.totalEscrowed() + escrow.totalCredits() + escrow.feesAccrued();
        booked += escrow.totalInChannels() + escrow.poolBalance() + escrow.totalReserved();
    }

    function depositsAreTheirSum() external view returns (bool) {
        uint256 sum = 0;
        for (uint256 i = 0; i < USERS; ++i) sum += escrow.depositOf(_user(i));
        return sum == escrow.totalDeposits();
    }

    function creditsAreTheirSum() external view returns (bool) {
        uint256 sum = 0;
        for (uint256 i = 0; i < PROVIDERS; ++i) sum += escrow.creditOf(_provider(i));
        return sum == escrow.totalCredits();
    }

    function openEscrowsAreTheirSum() external view returns (bool) {
        uint256 sum = 0;
        for (uint256 i = 0; i < _escrowIds.length; ++i) {
            IRequestEscrows.Escrow memory one = escrow.escrowOf(_escrowIds[i]);
            if (one.status == IRequestEscrows.EscrowStatus.Open) sum += one.amount;
        }
        return sum == escrow.totalEscrowed();
    }

    function channelsAreTheirSum() external view returns (bool) {
        uint256 sum = 0;
        for (uint256 i = 0; i < _channelIds.length; ++i) {
            IPaymentChannels.Channel memory one = escrow.channelOf(_channelIds[i]);
            if (one.status != IPaymentChannels.ChannelStatus.Closed) sum += one.amount - one.redeemed;
        }
        return sum == escrow.totalInChannels();
    }

    function allowancesAreWithinConsent() external view returns (bool) {
        for (uint256 i = 0; i < USERS; ++i) {
            if (escrow.spendingAllowance(_user(i)) > consented[_user(i)]) return false;
        }
        return true;
    }

    function releasesAreWithinCap() external view returns (bool) {
        return escrow.releasedToday() <= escrow.releaseCapPerDay();
    }

    // ---- helpers

    function _cancel(uint256 which, address caller) private {
        bytes32 id = _escrowIds[which % _escrowIds.length];
        IRequestEscrows.Escrow memory locked = escrow.escrowOf(id);
        uint256 before = escrow.depositOf(locked.user);
        vm.prank(caller);
        try escrow.cancel(id) {
            _promise(locked.status == IRequestEscrows.EscrowStatus.Open, "only an open escrow is cancelled");
            _promise(
                caller == address(this) || (caller == locked.user && block.timestamp > locked.deadline),
                "only a settler, or the user after the deadline, cancels"
            );
            _promise(
                escrow.depositOf(locked.user) == before + locked.amount,
                "a cancel returns everything to the user"
            );
        } catch {
            bool mayCancel =
                locked.status == IRequestEscrows.EscrowStatus.Open &&
                    caller == locked.user &&
                    block.timestamp > locked.deadline;
            _promise(!mayCancel, "nothing stops the user's cancel after the deadline");
        }
    }

    function _charges(
        uint256 seed,
        uint256 first,
        uint256 second
    ) private view returns (IBatchSettlement.Charges memory charges) {
        charges.users = new address[](seed % 3);
        charges.amounts = new uint256[](seed % 3);
        for (uint256 i = 0; i < seed % 3; ++i) {
            address user = _user(seed + i);
            charges.users[i] = user;
            uint256 most = _min(escrow.depositOf(user), escrow.spendingAllowance(user));
            uint256 wish = i == 0 ? first : second;
            charges.amounts[i] = bound(wish, 0, wish % 8 == 0 ? most + 1 : most);
        }
    }

    function _sum(uint256[] memory amounts) private pure returns (uint256 sum) {
        for (uint256 i = 0; i < amounts.length; ++i) sum += amounts[i];
    }

    /// @dev Amounts that fit about three times out of four.
    function _wished(
        uint256 count,
        uint256[5] calldata wishes,
        uint256 locked
    ) private pure returns (address[] memory providers, uint256[] memory amounts, uint256 total) {
        providers = new address[](count);
        amounts = new uint256[](count);
        for (uint256 i = 0; i < count; ++i) {
            providers[i] = _provider(wishes[i]);
            amounts[i] = bound(wishes[i], 1, 1 + locked / count);
            total += amounts[i];
        }
    }

    /// @dev Two times out of three waits until `then`, which few sequences would reach by chance.
    function _mayPass(uint256 seed, uint256 then) private {
        if (seed % 3 != 0 && block.timestamp < then) vm.warp(then);
    }

    function _promise(bool kept, string memory what) private {
        if (!kept && bytes(broken).length == 0) broken = what;
    }

    function _freshId() private view returns (bytes32) {
        return keccak256(abi.encode(_escrowIds.length));
    }

    function _user(uint256 seed) private pure returns (address) {
        return address(uint160(0x1000 + (seed % USERS)));
    }

    function _provider(uint256 seed) private pure returns (address) {
        return address(uint160(0x2000 + (seed % PROVIDERS)));
    }

    function _min(uint256 a, uint256 b) private pure returns (uint256) {
        return a < b ? a : b;
    }
}

contract InferenceEscrowInvariants {
    Handler private _handler;

    function setUp() public {
        _handler = new Handler();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    /// @dev To the wei, not only "at least": nothing is created, and nothing is lost.
    function invariant_everyTokenIsBookedOnce() external view {
        (uint256 held, uint256 booked) = _handler.heldAndBooked();
        require(held == booked + _handler.donated(), "held and booked differ");
    }

    function invariant_totalsAreSums() external view {
        require(_handler.depositsAreTheirSum(), "deposits");
        require(_handler.creditsAreTheirSum(), "credits");
        require(_handler.openEscrowsAreTheirSum(), "escrows");
        require(_handler.channelsAreTheirSum(), "channels");
    }

    function invariant_promisesAreKept() external view {
        string memory broken = _handler.broken();
        require(bytes(broken).length == 0, broken);
    }

    function invariant_limitsHold() external view {
        require(_handler.allowancesAreWithinConsent(), "allowance above consent");
        require(_handler.releasesAreWithinCap(), "released above the cap");
    }
}

contract InferenceEscrowFuzz is EscrowFixture {
    address private constant USER = address(0x1000);
    address private constant STRANGER = address(0x3000);
    bytes32 private constant REQUEST = "request";
    uint256 private constant KEY = 0x5e55;

    function setUp() public {
        _deploy();
    }

    function testFuzz_feeIsARoundedShareOfTheGross(uint128 total, uint16 rate) external view {
        uint16 feeBps = uint16(bound(rate, 0, escrow.MAX_FEE_BPS()));
        uint256 fee = escrow.feeOn(total, feeBps);
        require(fee % escrow.UNIT() == 0, "a multiple of the unit");
        require(fee * 10_000 <= (uint256(total) + fee) * feeBps, "never above the rate");
        uint256 more = fee + escrow.UNIT();
        require(more * 10_000 > (uint256(total) + more) * feeBps, "never a unit below it");
    }

    function testFuzz_releaseSplitsExactly(uint256 locked, uint256 first, uint256 second) external {
        locked = bound(locked, 1, CAP);
        bytes32 id = _escrowOf(locked);
        first = bound(first, 1, locked);
        second = bound(second, 1, locked);
        uint256 fee = escrow.feeOn(first + second, 2000);

        bool released = _release(id, first, second);
        require(released == (first + second + fee <= locked), "released if and only if it fits");
        if (!released) return;
        require(escrow.creditOf(address(1)) == first && escrow.creditOf(address(2)) == second, "providers");
        require(escrow.feesAccrued() == fee, "fee");
        require(escrow.depositOf(USER) == locked - first - second - fee, "refund");
    }

    function testFuzz_windowsNeverOverlap(uint256 locked, uint256 delay) external {
        bytes32 id = _escrowOf(bound(locked, 1e10, CAP));
        uint64 deadline = escrow.escrowOf(id).deadline;
        vm.warp(block.timestamp + bound(delay, 0, 1 hours));
        vm.prank(USER);
        try escrow.cancel(id) {
            require(block.timestamp > deadline, "cancelled too early");
        } catch {
            require(block.timestamp <= deadline, "not cancelled");
            require(_release(id, 1, 1), "not released");
        }
    }

    function testFuzz_strangersGetNothing(address stranger, uint256 locked, uint256 delay) external {
        vm.assume(stranger != USER && stranger != address(this) && stranger != address(vm));
        bytes32 id = _escrowOf(bound(locked, 1, CAP));
        vm.warp(block.timestamp + bound(delay, 0, 1 hours));
        vm.prank(stranger);
        try escrow.cancel(id) {
            revert("a stranger cancelled");
        } catch {}
        vm.prank(stranger);
        try escrow.withdrawDeposit(1) {
            revert("a stranger withdrew");
        } catch {}
        require(escrow.escrowOf(id).status == IRequestEscrows.EscrowStatus.Open, "still open");
    }

    function testFuzz_idsBelongToOneUser(address one, address two, bytes32 a, bytes32 b) external view {
        bool same = one == two && a == b;
        require((escrow.escrowIdOf(one, a) == escrow.escrowIdOf(two, b)) == same, "ids collide");
    }

    function testFuzz_forgedIntentsLockNothing(uint256 amount, uint256 nonce, bytes calldata signature) external {
        _fund(USER, 1e18);
        IRequestEscrows.EscrowIntent memory intent = IRequestEscrows.EscrowIntent({
            user: USER,
            requestId: REQUEST,
            maxAmount: bound(amount, 1, 1e18),
            lockSeconds: 10 minutes,
            maxFeeBps: 3000,
            nonce: nonce,
            validUntil: type(uint64).max
        });
        vm.prank(STRANGER);
        try escrow.createEscrowFor(intent, signature) {
            revert("a forged intent was taken");
        } catch {}
        require(escrow.depositOf(USER) == 1e18, "deposit");
    }

    function testFuzz_forgedVouchersMoveNothing(bytes calldata signature, uint128 limit, uint128 claimed) external {
        bytes32 id = _channelOf(1e18);
        IPaymentChannels.Claim[] memory claims = new IPaymentChannels.Claim[](1);
        claims[0] = IPaymentChannels.Claim(id, limit, claimed, signature);
        try escrow.redeemVouchers(claims) {
            revert("a forged voucher was taken");
        } catch {}
        require(escrow.totalInChannels() == 1e18, "channel");
    }

    function testFuzz_vouchersAreRedeemedOnceAndInOrder(uint128 first, uint128 second) external {
        bytes32 id = _channelOf(1e18);
        first = uint128(bound(first, 1, 1e18));
        second = uint128(bound(second, 1, 1e18));
        escrow.redeemVouchers(_claim(id, KEY, first, first));
        try escrow.redeemVouchers(_claim(id, KEY, second, second)) {
            require(second > first, "a stale voucher was taken");
        } catch {
            require(second <= first, "a newer voucher was refused");
        }
        require(escrow.poolBalance() == (second > first ? second : first), "pool");
    }

    function testFuzz_onlyTheSignedLeafIsClaimed(address provider, uint256 cumulative, address other, uint256 more) external {
        vm.assume(provider != address(0) && provider != address(escrow));
        vm.assume(other != provider || more != 0);
        bytes32 id = _channelOf(1e18);
        escrow.redeemVouchers(_claim(id, KEY, 1e18, 1e18));
        cumulative = bound(cumulative, 1, 1e18);
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(provider, cumulative))));
        IBatchSettlement.Charges memory nobody;
        escrow.commitPayoutRoot(1, leaf, cumulative, 0, nobody);
        vm.warp(block.timestamp + 1 days);
        unchecked {
            try escrow.claimPayout(1, other, cumulative + more, new bytes32[](0)) {
                revert("a forged leaf was taken");
            } catch {}
        }
        escrow.claimPayout(1, provider, cumulative, new bytes32[](0));
        require(escrow.creditOf(provider) == cumulative, "credit");
    }

    function _channelOf(uint256 amount) private returns (bytes32) {
        _fund(USER, amount);
        vm.prank(USER);
        return escrow.openChannel("salt", vm.addr(KEY), amount, 1 hours);
    }

    function _escrowOf(uint256 amount) private returns (bytes32) {
        _fund(USER, amount);
        vm.prank(USER);
        return escrow.createEscrow(REQUEST, amount);
    }

    function _release(bytes32 id, uint256 first, uint256 second) private returns (bool) {
        address[] memory providers = new address[](2);
        uint256[] memory amounts = new uint256[](2);
        (providers[0], providers[1]) = (address(1), address(2));
        (amounts[0], amounts[1]) = (first, second);
        try escrow.releaseMultiple(id, providers, amounts) {
            return true;
        } catch {
            return false;
        }
    }
}

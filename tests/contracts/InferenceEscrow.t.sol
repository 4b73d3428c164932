// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {FarToken} from "../../contracts/FarToken.sol";
import {IRequestEscrows} from "../../contracts/escrow/IRequestEscrows.sol";
import {InferenceEscrow} from "../../contracts/InferenceEscrow.sol";

/// @dev The few cheat codes used here.
interface Vm {
    function prank(address sender) external;
    function warp(uint256 timestamp) external;
    function assume(bool condition) external pure;
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

    function _fund(address user, uint256 amount) internal {
        token.approve(address(escrow), amount);
        escrow.depositFor(user, amount);
    }
}

/// @dev Calls the escrow at random, as everybody it knows, and remembers what must hold.
contract Handler is EscrowFixture {
    uint256 private constant USERS = 4;
    uint256 private constant PROVIDERS = 5;

    bytes32[] private _escrowIds;
    uint256 public donated;
    /// @dev The first promise that was broken, if any.
    string public broken;
    /// @dev What a user consented to with the latest call of `setSpendingAllowance`.
    mapping(address user => uint256) public consented;

    constructor() {
        _deploy();
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
        vm.warp(block.timestamp + bound(duration, 1, 2 hours));
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

// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {FarStaking} from "../../contracts/FarStaking.sol";
import {FarToken} from "../../contracts/FarToken.sol";
import {IFarStaking} from "../../contracts/IFarStaking.sol";
import {bound, vm} from "./InferenceEscrow.t.sol";

/// @dev Calls the staking contract at random, as everybody it knows, and remembers what must hold.
contract StakingHandler {
    uint256 private constant PROVIDERS = 3;

    FarToken private _token;
    FarStaking private _staking;
    bytes32[] private _slashIds;
    mapping(address provider => uint256) private _paidIn;
    mapping(address provider => uint256) private _takenOut;
    /// @dev The first promise that was broken, if any.
    string public broken;

    constructor() {
        _token = new FarToken(address(this), 1e27);
        address self = address(this);
        FarStaking.Holders memory holders = FarStaking.Holders(self, self, self, self, self);
        _staking = new FarStaking(_token, 1 days, holders, 8 days, 3 days, 3000);
        for (uint256 i = 0; i < PROVIDERS; ++i) {
            _token.transfer(_provider(i), 1e24);
            vm.prank(_provider(i));
            _token.approve(address(_staking), type(uint256).max);
        }
    }

    // ---- what may happen

    function stake(uint256 who, uint256 amount) external {
        address provider = _provider(who);
        amount = bound(amount, 1, 1e21);
        vm.prank(provider);
        try _staking.stake(amount) {
            _paidIn[provider] += amount;
        } catch {}
    }

    function requestUnstake(uint256 who, uint256 amount) external {
        address provider = _provider(who);
        uint256 active = _staking.stakeOf(provider).active;
        if (active == 0) return;
        vm.prank(provider);
        _staking.requestUnstake(amount % 2 == 0 ? active : bound(amount, 1, active));
    }

    function finishUnstake(uint256 who, uint256 seed) external {
        address provider = _provider(who);
        IFarStaking.Stake memory before = _staking.stakeOf(provider);
        uint256 balance = _token.balanceOf(provider);
        if (before.unbonding != 0 && seed % 2 == 0 && block.timestamp < before.readyAt) vm.warp(before.readyAt);
        uint256 pending = _staking.pendingSlashOf(provider);
        bool ready = before.unbonding != 0 && block.timestamp >= before.readyAt;
        bool held = uint256(before.active) + before.unbonding == pending;
        vm.prank(provider);
        try _staking.finishUnstake(provider) {
            uint256 amount = _token.balanceOf(provider) - balance;
            _promise(ready, "nothing leaves before it has unbonded");
            _promise(amount <= before.unbonding, "no more leaves than has unbonded");
            _promise(before.active + before.unbonding - amount >= pending, "what a proposal asks for stays");
            _takenOut[provider] += amount;
        } catch {
            _promise(!ready || held, "nothing but a proposal stops an unstaking");
        }
    }

    function proposeSlash(uint256 who, uint256 amount) external {
        address provider = _provider(who);
        IFarStaking.Stake memory theirs = _staking.stakeOf(provider);
        uint256 total = uint256(theirs.active) + theirs.unbonding;
        amount = bound(amount, 1, 1 + total / 3);
        bytes32 evidence = bytes32(_slashIds.length + 1);
        bool pending = _staking.pendingSlashOf(provider) != 0;
        try _staking.proposeSlash(provider, amount, evidence) returns (bytes32 id) {
            _promise(amount * 10_000 <= total * 3000, "a proposal is within the cap");
            _promise(!pending, "one live proposal at a time");
            _slashIds.push(id);
        } catch {}
    }

    function vetoSlash(uint256 which, uint256 seed) external {
        if (_slashIds.length == 0 || seed % 4 != 0) return;
        try _staking.vetoSlash(_slashIds[which % _slashIds.length]) {} catch {}
    }

    function executeSlash(uint256 which) external {
        if (_slashIds.length == 0) return;
        bytes32 id = _slashIds[which % _slashIds.length];
        IFarStaking.Slash memory slash = _staking.slashOf(id);
        uint256 slashed = _staking.slashedAccrued();
        bool live = slash.status == IFarStaking.SlashStatus.Proposed &&
            block.timestamp >= slash.executableAt &&
            block.timestamp <= slash.expiresAt;
        try _staking.executeSlash(id) {
            _promise(live, "a slash is executed in its window");
            _promise(_staking.slashedAccrued() == slashed + slash.amount, "a slash takes what was proposed");
            _takenOut[slash.provider] += slash.amount;
        } catch {
            _promise(!live || _staking.paused(), "a slash that is due can be executed");
        }
    }

    function withdrawSlashed(uint256 amount) external {
        uint256 available = _staking.slashedAccrued();
        if (available != 0) _staking.withdrawSlashed(address(this), bound(amount, 1, available));
    }

    function togglePause(uint256 seed) external {
        if (_staking.paused()) _staking.unpause();
        else if (seed % 4 == 0) _staking.pause();
    }

    function pass(uint256 duration) external {
        vm.warp(block.timestamp + bound(duration, 1, 4 days));
    }

    // ---- what can be seen

    function isSolvent() external view returns (bool) {
        return _token.balanceOf(address(_staking)) == _staking.totalStaked() + _staking.slashedAccrued();
    }

    function stakesAreTheirSum() external view returns (bool) {
        uint256 sum = 0;
        for (uint256 i = 0; i < PROVIDERS; ++i) {
            IFarStaking.Stake memory one = _staking.stakeOf(_provider(i));
            sum += uint256(one.active) + one.unbonding;
        }
        return sum == _staking.totalStaked();
    }

    function stakesAreWhatWasPaidIn() external view returns (bool) {
        for (uint256 i = 0; i < PROVIDERS; ++i) {
            address provider = _provider(i);
            IFarStaking.Stake memory one = _staking.stakeOf(provider);
            if (uint256(one.active) + one.unbonding + _takenOut[provider] != _paidIn[provider]) return false;
        }
        return true;
    }

    function _promise(bool kept, string memory what) private {
        if (!kept && bytes(broken).length == 0) broken = what;
    }

    function _provider(uint256 seed) private pure returns (address) {
        return address(uint160(0x2000 + (seed % PROVIDERS)));
    }
}

contract FarStakingInvariants {
    StakingHandler private _handler;

    function setUp() public {
        _handler = new StakingHandler();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    /// @dev To the wei, not only "at least".
    function invariant_everyTokenIsBookedOnce() external view {
        require(_handler.isSolvent(), "held and booked differ");
    }

    function invariant_stakesAddUp() external view {
        require(_handler.stakesAreTheirSum(), "sum");
        require(_handler.stakesAreWhatWasPaidIn(), "a stake changed by more than its owner and its slashes did");
    }

    function invariant_promisesAreKept() external view {
        string memory broken = _handler.broken();
        require(bytes(broken).length == 0, broken);
    }
}

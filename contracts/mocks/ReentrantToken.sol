// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";

/// @dev Test double: makes one call of the tester's choice in the middle of the next transfer.
contract ReentrantToken is ERC20Permit {
    address private _target;
    bytes private _data;

    constructor(address holder) ERC20("Reentrant", "RE") ERC20Permit("Reentrant") {
        _mint(holder, 1e27);
    }

    function arm(address target, bytes calldata data) external {
        (_target, _data) = (target, data);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        address target = _target;
        if (target == address(0)) return;
        _target = address(0);
        Address.functionCall(target, _data);
    }
}

// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @dev Test double: reverts when an account on its list is to receive tokens.
contract BlockingToken is ERC20 {
    mapping(address account => bool) private _blocked;

    error Blocked(address account);

    constructor(address holder) ERC20("Blocking", "BLK") {
        _mint(holder, 1e27);
    }

    function blockRecipient(address account) external {
        _blocked[account] = true;
    }

    function _update(address from, address to, uint256 value) internal override {
        require(!_blocked[to], Blocked(to));
        super._update(from, to, value);
    }
}

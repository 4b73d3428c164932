// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @dev Test double: `feeBps` of every transfer is burnt on the way. It has no `permit`.
contract FeeOnTransferToken is ERC20 {
    uint256 private immutable _feeBps;

    constructor(address holder, uint256 feeBps) ERC20("Fee on transfer", "FEE") {
        _feeBps = feeBps;
        _mint(holder, 1e27);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from != address(0) && to != address(0)) {
            super._update(to, address(0), (value * _feeBps) / 10_000);
        }
    }
}

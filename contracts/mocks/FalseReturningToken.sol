// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @dev Test double: says `false` instead of reverting, and moves nothing, for as long as it is told to.
contract FalseReturningToken is ERC20 {
    bool private _refuses;

    constructor(address holder) ERC20("False", "NO") {
        _mint(holder, 1e27);
    }

    function refuse(bool refuses) external {
        _refuses = refuses;
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        return !_refuses && super.transfer(to, value);
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        return !_refuses && super.transferFrom(from, to, value);
    }
}

// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/**
 * @title FarToken
 * @notice FAR, the token that users of Far Mesh pay with and providers are paid in.
 *
 * The whole supply is minted once, at deployment. There is no owner, no minting afterwards, no fee and no pause.
 *
 * Holders can move and approve tokens by signature alone: {permit} (EIP-2612) and {transferWithAuthorization}
 * (EIP-3009). Authorisation nonces are random 32-byte values, as EIP-3009 and its wallets expect, rather than the
 * sequential ones of OpenZeppelin's `ERC20TransferAuthorization`.
 *
 * NOTE: A contract that is to receive tokens should call {receiveWithAuthorization}. A stranger who sees a
 * {transferWithAuthorization} can submit it on its own, and the tokens then arrive without being booked.
 */
contract FarToken is ERC20Permit, ERC3009 {
    constructor(address holder, uint256 supply) ERC20("Far Mesh", "FAR") ERC20Permit("Far Mesh") {
        _mint(holder, supply);
    }
}
